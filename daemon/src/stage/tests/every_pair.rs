//! Every state that the machine can be in, and every event in it, and every event after that.

use super::{model::Checked, *};

/// One of each kind, and of each variant that takes another road.
pub fn events(now: Duration) -> Vec<Event> {
    let obstacle = Some(Obstacle { code: "window", text: "never asleep at 18:00".into() });
    let queue = Some(AcceptQueue { waiting: 64, backlog: 128 });
    let mut events = Vec::new();
    events.extend(
        [
            idle(),
            frozen(),
            Observation { last_player: Some(now), ..frozen() },
            Observation { accept_queue: queue, ..frozen() },
            Observation { cpu_controller: false, ..idle() },
            Observation { obstacle: obstacle.clone(), ..frozen() },
            Observation { deep_obstacle: obstacle, ..frozen() },
        ]
        .map(Event::Observed),
    );
    events.extend([good(), bad()].map(Event::Evidence));
    events.extend([Class::Undecided, Class::Player, Class::Query, Class::Probe, Class::Noise].map(knock));
    events.extend([Mode::Observe, Mode::Doze, Mode::Full].map(Event::SetMode));
    events.extend(
        [
            limits(),
            Limits { floor: Floor::Awake, ..limits() },
            Limits { floor: Floor::Dozing, ..limits() },
            Limits { doze_by: DozeBy::Throttle, ..limits() },
            Limits { deep_after: None, wakes_per_hour: 0, doze_after: Duration::MAX, ..limits() },
        ]
        .map(Event::SetLimits),
    );
    let reason = || "for a reason".to_string();
    events.extend([
        Event::DozeDone,
        Event::DozeAborted { reason: reason() },
        Event::DeepDone { bytes: 1 },
        Event::DeepAborted { reason: reason() },
        Event::ThawDone,
        Event::Woken,
        Event::WakeFailed { reason: reason() },
        Event::CanaryOk,
        Event::CanaryFailed { reason: reason() },
        Event::Sleep { deep: false },
        Event::Sleep { deep: true },
        Event::Wake { keep: None },
        Event::Wake { keep: Some(kept(None)) },
        Event::Keep(kept(Some(now + secs(5)))),
        Event::Release,
        Event::Pardon,
        Event::ServerStopping,
        Event::ServerGone,
        Event::ServerStarted { at: now },
        Event::PoolLow,
        Event::Pressure,
    ]);
    events
}

/// A new event is a compile error here, and then a failing test until it is among the events above.
fn kind(event: &Event) -> usize {
    match event {
        Event::Observed(_) => 0,
        Event::Evidence(_) => 1,
        Event::DozeDone => 2,
        Event::DozeAborted { .. } => 3,
        Event::DeepDone { .. } => 4,
        Event::DeepAborted { .. } => 5,
        Event::ThawDone => 6,
        Event::Knock { .. } => 7,
        Event::Woken => 8,
        Event::WakeFailed { .. } => 9,
        Event::CanaryOk => 10,
        Event::CanaryFailed { .. } => 11,
        Event::Sleep { .. } => 12,
        Event::Wake { .. } => 13,
        Event::Keep(_) => 14,
        Event::Release => 15,
        Event::Pardon => 16,
        Event::SetMode(_) => 17,
        Event::SetLimits(_) => 18,
        Event::ServerStopping => 19,
        Event::ServerGone => 20,
        Event::ServerStarted { .. } => 21,
        Event::PoolLow => 22,
        Event::Pressure => 23,
    }
}

#[test]
fn no_event_is_forgotten() {
    let mut kinds: Vec<usize> = events(Duration::ZERO).iter().map(kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, (0..24).collect::<Vec<_>>());
}

/// The events that lead to a state, with the seconds before each.
type Road = Vec<(u64, Event)>;

/// Every state by name, and how to get there.
fn states() -> Vec<(&'static str, Mode, Road)> {
    let look = || (1000, Event::Observed(idle()));
    let gathering = || vec![look()];
    let entering = |evidence| [gathering(), vec![(1, Event::Evidence(evidence))]].concat();
    let dozing = |evidence| [entering(evidence), vec![(1, Event::DozeDone)]].concat();
    let deepening = || [dozing(good()), vec![(1200, Event::Observed(frozen()))]].concat();
    let deep =
        |evidence| [dozing(evidence), vec![(1, Event::PoolLow), (1, Event::DeepDone { bytes: 1 })]].concat();
    let waking = || [dozing(good()), vec![(1, knock(Class::Player))]].concat();
    let with = |base: Road, more: Event| [base, vec![(1, more)]].concat();
    let failed = || Event::WakeFailed { reason: "EBUSY".into() };
    let asked = || Event::Sleep { deep: true };
    vec![
        ("unseen", Mode::Full, vec![]),
        ("just started", Mode::Full, vec![(1, Event::Observed(idle()))]),
        ("gathering", Mode::Full, gathering()),
        ("gathering, asked", Mode::Full, with(gathering(), asked())),
        ("gathering, stale", Mode::Full, with(gathering(), Event::SetMode(Mode::Doze))),
        ("held back", Mode::Full, with(entering(good()), Event::DozeAborted { reason: "x".into() })),
        ("entering", Mode::Full, entering(good())),
        ("entering, asked", Mode::Full, with(entering(good()), asked())),
        ("entering, knocked", Mode::Full, with(entering(good()), knock(Class::Player))),
        ("entering, woken", Mode::Full, with(entering(good()), Event::Woken)),
        ("frozen", Mode::Full, dozing(good())),
        ("frozen, mode doze", Mode::Doze, dozing(good())),
        ("throttled", Mode::Full, dozing(bad())),
        ("thawing", Mode::Full, with(dozing(good()), knock(Class::Query))),
        ("deepening", Mode::Full, deepening()),
        ("deepening, asked", Mode::Full, with(deepening(), asked())),
        ("deepening, stopping", Mode::Full, with(deepening(), Event::Pressure)),
        ("deep", Mode::Full, deep(good())),
        ("deep, throttled", Mode::Full, deep(bad())),
        ("deep, thawing", Mode::Full, with(deep(good()), knock(Class::Query))),
        ("waking", Mode::Full, waking()),
        ("waking, page-out unanswered", Mode::Full, with(deepening(), knock(Class::Player))),
        ("waking, failed", Mode::Full, with(waking(), failed())),
        ("waking, gone", Mode::Full, with(waking(), Event::ServerGone)),
        ("canary", Mode::Full, with(waking(), Event::Woken)),
        ("kept", Mode::Full, vec![look(), (1, Event::Keep(kept(None))), (1, Event::Evidence(good()))]),
        ("stopping", Mode::Full, vec![(1, Event::ServerStopping)]),
        ("gone", Mode::Full, vec![(1, Event::ServerGone)]),
        ("paper gathering", Mode::Observe, gathering()),
        ("paper frozen", Mode::Observe, entering(good())),
        ("paper throttled", Mode::Observe, entering(bad())),
        ("paper deep", Mode::Observe, with(entering(good()), Event::PoolLow)),
        ("disabled asleep", Mode::Full, with(dozing(good()), Event::SetMode(Mode::Observe))),
    ]
}

fn reach(mode: Mode, road: Road) -> Checked {
    let mut checked = Checked::new(setup(mode));
    for (after, event) in road {
        checked.tell(secs(after), event);
    }
    checked
}

#[test]
fn every_event_in_every_state_and_every_one_after_it() {
    let mut pairs = 0;
    for (name, mode, road) in states() {
        let state = reach(mode, road);
        for first in events(state.now) {
            let label = format!("{name}: {first:?}");
            let result = std::panic::catch_unwind(|| {
                let mut once = state.clone();
                once.tell(secs(1), first);
                for second in events(once.now) {
                    let label = format!("then {second:?}");
                    let result = std::panic::catch_unwind(|| {
                        let mut twice = once.clone();
                        twice.tell(secs(1), second);
                    });
                    assert!(result.is_ok(), "{label}");
                }
                once.settle();
            });
            assert!(result.is_ok(), "{label}");
            pairs += 1;
        }
    }
    assert_eq!(pairs, states().len() * events(Duration::ZERO).len());
}

#[test]
fn the_states_are_what_their_names_say() {
    for (name, mode, road) in states() {
        let why = reach(mode, road).machine.why();
        let word = name.split([' ', ',']).next().unwrap();
        let (stage, paper) = (why.stage.word(), why.paper.map(Stage::word));
        let expected = match word {
            "frozen" | "throttled" | "thawing" | "deepening" => ("dozing", None),
            "deep" => ("deep", None),
            "waking" | "disabled" => ("waking", paper),
            "paper" if name.contains("deep") => ("awake", Some("deep")),
            "paper" if name.contains("gathering") => ("awake", Some("awake")),
            "paper" => ("awake", Some("dozing")),
            _ if name == "entering, knocked" => ("waking", None),
            _ => ("awake", None),
        };
        assert_eq!((stage, paper), expected, "{name}");
    }
}
