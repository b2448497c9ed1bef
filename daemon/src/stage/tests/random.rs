//! Random lives: once with any event at any time, once with a world that carries the orders out truly while
//! reports from executor and door arrive in any order.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::{every_pair::events, model::Checked, *};

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Observe), Just(Mode::Doze), Just(Mode::Full)]
}

/// Mostly small steps, some as long as a limit.
fn pause() -> impl Strategy<Value = Duration> {
    prop_oneof![
        4 => (0u64..5_000).prop_map(Duration::from_millis),
        1 => (0u64..1_500).prop_map(Duration::from_secs),
    ]
}

proptest! {
    #[test]
    fn anything_may_happen(
        mode in mode(),
        spoofable: bool,
        steps in proptest::collection::vec((pause(), any::<prop::sample::Index>()), 1..120),
    ) {
        let mut checked = Checked::new(Setup { spoofable, ..setup(mode) });
        for (after, pick) in steps {
            let events = events(checked.now);
            checked.tell(after, events[pick.index(events.len())].clone());
            let saved = checked.machine.saved();
            let text = serde_json::to_string(&saved).unwrap();
            prop_assert_eq!(serde_json::from_str::<Saved>(&text).unwrap(), saved.clone());
            let mut adopted = Machine::adopted(checked.now, setup(mode), saved);
            adopted.handle(checked.now, knock(Class::Player));
            prop_assert!(matches!(adopted.stage(), Stage::Awake | Stage::Waking));
        }
        checked.settle();
    }

    #[test]
    fn observe_never_touches(
        steps in proptest::collection::vec((pause(), any::<prop::sample::Index>()), 1..200),
    ) {
        let mut machine = Machine::new(Duration::ZERO, setup(Mode::Observe));
        let mut now = Duration::ZERO;
        for (after, pick) in steps {
            now += after;
            let mut events = events(now);
            // A gate that is shut is our own doing, which cannot be in a life that only observes.
            events.retain(|event| match event {
                Event::SetMode(_) => false,
                Event::Observed(seen) => !seen.gate_shut,
                _ => true,
            });
            for action in machine.handle(now, events[pick.index(events.len())].clone()) {
                prop_assert!(!action.touches(), "{:?}", action);
            }
            prop_assert_eq!(machine.stage(), Stage::Awake);
        }
    }

    #[test]
    fn machine_and_world_agree(steps in proptest::collection::vec((pause(), step()), 1..150)) {
        let mut world = World::new();
        for (after, step) in steps {
            world.checked.now += after;
            world.step(step);
        }
        world.agree();
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The executor carries out its oldest order, or fails to.
    Execute {
        well: bool,
    },
    HearExecutor,
    HearDoor,
    Look,
    /// A player's packet; the door itself wakes the server for it or leaves that to the machine.
    Player {
        door_wakes: bool,
        knock_first: bool,
    },
    Query,
    Operator {
        sleep: bool,
    },
    Evidence {
        good: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..5u8).prop_map(|luck| Step::Execute { well: luck > 0 }),
        4 => Just(Step::HearExecutor),
        2 => Just(Step::HearDoor),
        4 => Just(Step::Look),
        1 => any::<(bool, bool)>().prop_map(|(door_wakes, knock_first)| Step::Player { door_wakes, knock_first }),
        1 => Just(Step::Query),
        1 => any::<bool>().prop_map(|sleep| Step::Operator { sleep }),
        1 => any::<bool>().prop_map(|good| Step::Evidence { good }),
    ]
}

/// What really is.
struct World {
    checked: Checked,
    asleep: Option<DozeBy>,
    last_player: Option<Duration>,
    orders: VecDeque<Action>,
    from_executor: VecDeque<Event>,
    from_door: VecDeque<Event>,
    good: bool,
}

/// Seconds, so that a life has many sleeps.
fn quick() -> Limits {
    Limits {
        doze_after: secs(3),
        deep_after: Some(secs(3)),
        min_awake: secs(1),
        grace_after_start: secs(0),
        wakes_per_hour: 100,
        ..limits()
    }
}

impl World {
    fn new() -> Self {
        Self {
            checked: Checked::new(Setup { limits: quick(), ..setup(Mode::Full) }),
            asleep: None,
            last_player: None,
            orders: VecDeque::new(),
            from_executor: VecDeque::new(),
            from_door: VecDeque::new(),
            good: true,
        }
    }

    fn tell(&mut self, event: Event) {
        let actions = self.checked.tell(Duration::from_millis(1), event);
        self.orders.extend(actions.into_iter().filter(|action| {
            !matches!(action, Action::Answer(_) | Action::Demote(_) | Action::RunAfterWake | Action::StopDeep)
        }));
    }

    fn look(&mut self) {
        self.tell(Event::Observed(Observation {
            last_player: self.last_player,
            frozen: self.asleep == Some(DozeBy::Freeze),
            gate_shut: self.asleep.is_some(),
            ..idle()
        }));
    }

    fn execute(&mut self, well: bool) {
        let reason = || "bad luck".to_string();
        let report = match self.orders.pop_front() {
            None => return,
            Some(Action::GatherEvidence { .. }) => Event::Evidence(if self.good { good() } else { bad() }),
            // It looks again, as the door's order of steps demands.
            Some(Action::EnterDoze { .. })
                if !well || self.last_player > Some(self.checked.machine.doze_ordered_at) =>
            {
                Event::DozeAborted { reason: reason() }
            }
            Some(Action::EnterDoze { by }) => {
                self.asleep = Some(by);
                Event::DozeDone
            }
            Some(Action::GoDeep) if well => Event::DeepDone { bytes: 1 },
            Some(Action::GoDeep) => Event::DeepAborted { reason: reason() },
            Some(Action::QueryThaw) => Event::ThawDone,
            Some(Action::Wake { .. }) if !well => Event::WakeFailed { reason: reason() },
            Some(Action::Wake { .. }) => {
                self.asleep = None;
                Event::Woken
            }
            Some(Action::StartCanary) if well => Event::CanaryOk,
            Some(Action::StartCanary) => Event::CanaryFailed { reason: reason() },
            Some(other) => panic!("not an order: {other:?}"),
        };
        self.from_executor.push_back(report);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Execute { well } => self.execute(well),
            Step::HearExecutor => {
                if let Some(event) = self.from_executor.pop_front() {
                    self.tell(event);
                }
            }
            Step::HearDoor => {
                if let Some(event) = self.from_door.pop_front() {
                    self.tell(event);
                }
            }
            Step::Look => self.look(),
            Step::Player { door_wakes, knock_first } => {
                self.last_player = Some(self.checked.now);
                if self.asleep.is_none() {
                    return;
                }
                let mut reports = vec![knock(Class::Player)];
                if door_wakes {
                    self.asleep = None;
                    reports.insert(usize::from(knock_first), Event::Woken);
                }
                self.from_door.extend(reports);
            }
            Step::Query => self.from_door.push_back(knock(Class::Query)),
            Step::Operator { sleep: true } => self.tell(Event::Sleep { deep: false }),
            Step::Operator { sleep: false } => self.tell(Event::Wake { keep: None }),
            Step::Evidence { good } => self.good = good,
        }
    }

    /// All orders carried out, all reports heard, two looks taken: machine and world must be of one mind.
    /// Then a player comes and must find it awake.
    fn agree(mut self) {
        for _ in 0..3 {
            self.drain();
            self.checked.now += secs(11);
            self.look();
        }
        self.drain();
        assert_eq!(self.checked.machine.stage().by(), self.asleep);
        self.step(Step::Player { door_wakes: false, knock_first: true });
        self.drain();
        assert_eq!((self.checked.machine.stage(), self.asleep), (Stage::Awake, None));
    }

    fn drain(&mut self) {
        while !(self.orders.is_empty() && self.from_executor.is_empty() && self.from_door.is_empty()) {
            self.execute(true);
            self.step(Step::HearExecutor);
            self.step(Step::HearDoor);
        }
    }
}
