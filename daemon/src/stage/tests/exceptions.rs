//! One test a rule of what is out of the ordinary: other causes of a wake, failures and demotions, operators, paper,
//! a restart.

use super::*;

#[test]
fn somebody_elses_thaw_is_a_wake() {
    let mut bench = Bench::new(Mode::Full);
    bench.doze();
    assert_eq!(bench.look(), wake(Cause::ThawedByOther));
}

#[test]
fn a_report_gone_astray_is_found_out_at_the_gate() {
    let mut bench = Bench::new(Mode::Full);
    bench.doze();
    bench.tell(Event::Woken);
    assert_eq!(bench.tell(Event::Observed(frozen())), wake(Cause::Doubt), "awake behind a shut gate");

    let mut bench = Bench::new(Mode::Full);
    bench.look();
    bench.tell(Event::Evidence(bad()));
    bench.tell(Event::DozeDone);
    assert_eq!(bench.look(), wake(Cause::Doubt), "throttled behind an open gate");
}

#[test]
fn an_observation_older_than_our_freeze_proves_nothing() {
    let mut bench = Bench::new(Mode::Full);
    bench.doze();
    let before = bench.now.checked_sub(Duration::from_millis(5)).unwrap();
    assert_eq!(bench.machine.handle(before, Event::Observed(idle())), []);
}

#[test]
fn a_changed_rule_wakes() {
    let changes: [(Event, &str); 8] = [
        (Event::Keep(kept(None)), "kept"),
        (Event::SetMode(Mode::Observe), "observe"),
        (Event::SetMode(Mode::Doze), "mode-doze"),
        (Event::SetLimits(Limits { floor: Floor::Awake, ..limits() }), "floor-awake"),
        (Event::SetLimits(Limits { floor: Floor::Dozing, ..limits() }), "floor-dozing"),
        (Event::SetLimits(Limits { doze_by: DozeBy::Throttle, ..limits() }), "freeze-forbidden"),
        (Event::ServerStopping, "stopping"),
        (
            Event::Observed(Observation {
                obstacle: Some(Obstacle { code: "window", text: "never asleep at 18:00".into() }),
                ..frozen()
            }),
            "window",
        ),
    ];
    for (event, code) in changes {
        let mut bench = Bench::new(Mode::Full);
        bench.deep();
        match &bench.tell(event)[..] {
            [Action::Wake { cause }] => assert_eq!(cause.code(), code),
            other => panic!("{code}: {other:?}"),
        }
        // Nobody is tried whether he stood it who was let go to end.
        let expected = if code == "stopping" { &WOKEN[..1] } else { &WOKEN[..] };
        assert_eq!(bench.tell(Event::Woken), expected);
    }
}

#[test]
fn kept_ends_by_itself() {
    let mut bench = Bench::new(Mode::Full);
    bench.tell(Event::Keep(kept(Some(secs(2000)))));
    assert_eq!(bench.look(), []);
    assert_eq!(bench.refusal(), "kept");
    assert_eq!(bench.machine.next_deadline(), Some(secs(2000)));
    bench.now = secs(2000);
    assert_eq!(bench.look(), [Action::GatherEvidence { run_hook: true }]);
    assert_eq!(bench.machine.why().kept, None);
}

#[test]
fn a_failed_wake_is_tried_again() {
    let mut bench = Bench::new(Mode::Full);
    bench.doze();
    bench.tell(knock(Class::Player));
    assert_eq!(bench.tell(Event::WakeFailed { reason: "EBUSY".into() }), []);
    let at = bench.machine.next_deadline().unwrap();
    assert_eq!(at, bench.now + Duration::from_millis(250));
    assert_eq!(bench.machine.handle(at, Event::Observed(frozen())), wake(PLAYER));
    bench.now = at;
    bench.tell(Event::WakeFailed { reason: "EBUSY".into() });
    assert_eq!(bench.machine.next_deadline(), Some(bench.now + Duration::from_millis(500)));
    assert!(bench.machine.why().reason.to_string().contains("EBUSY"));
}

#[test]
fn a_failed_canary_demotes_step_by_step() {
    let fail = |bench: &mut Bench| {
        bench.tell(knock(Class::Player));
        bench.tell(Event::Woken);
        match &bench.tell(Event::CanaryFailed { reason: "no answer".into() })[..] {
            [Action::Demote(demotion)] => demotion.clone(),
            other => panic!("{other:?}"),
        }
    };
    let mut bench = Bench::new(Mode::Full);
    bench.doze();
    let demotion = fail(&mut bench);
    assert_eq!(demotion.ceiling, Ceiling::Throttle);
    assert!(demotion.cure.contains("max-tick-time=-1"), "{}", demotion.cure);

    // It survives a restart, as JSON.
    let stored = serde_json::to_string(&demotion).unwrap();
    let mut bench =
        Bench::of(Setup { demotion: Some(serde_json::from_str(&stored).unwrap()), ..setup(Mode::Full) });
    bench.look();
    assert_eq!(bench.tell(Event::Evidence(good())), [Action::EnterDoze { by: DozeBy::Throttle }]);
    bench.tell(Event::DozeDone);
    assert_eq!(fail(&mut bench).ceiling, Ceiling::Awake);
    bench.later(1000, Event::Observed(idle()));
    assert_eq!(bench.refusal(), "demoted");
    assert_eq!(refused(&bench.tell(Event::Sleep { deep: false })), "demoted");
    bench.tell(Event::Pardon);
    assert_eq!(bench.look(), [Action::GatherEvidence { run_hook: true }]);
}

#[test]
fn dying_of_a_wake_demotes_once_and_dying_otherwise_does_not() {
    let woken = || {
        let mut bench = Bench::new(Mode::Full);
        bench.doze();
        bench.tell(Event::Wake { keep: None });
        bench.tell(Event::Woken);
        bench
    };
    let mut bench = woken();
    assert!(matches!(bench.tell(Event::ServerGone)[..], [Action::Demote(_)]));
    assert_eq!(bench.tell(Event::CanaryFailed { reason: "gone".into() }), []);
    assert_eq!(bench.refusal(), "gone");

    let mut bench = woken();
    let at = bench.now;
    assert!(matches!(bench.tell(Event::ServerStarted { at })[..], [Action::Demote(_)]), "restarted quickly");
    bench.look();
    assert_eq!(bench.machine.why().demotion.unwrap().ceiling, Ceiling::Throttle);

    let mut bench = woken();
    bench.tell(Event::ServerStopping);
    assert_eq!(bench.tell(Event::ServerGone), [], "it was stopped");

    let mut bench = woken();
    bench.tell(Event::ServerStopping);
    assert_eq!(bench.tell(Event::CanaryFailed { reason: "gone".into() }), [], "it was stopped");

    let mut bench = Bench::new(Mode::Full);
    bench.doze();
    bench.tell(Event::ServerStopping);
    assert_eq!(bench.tell(Event::Woken), [Action::RunAfterWake], "let go to end, not to be tried");
    assert_eq!(bench.tell(Event::ServerGone), []);

    let mut bench = woken();
    bench.tell(Event::CanaryOk);
    assert_eq!(bench.later(60, Event::ServerGone), [], "it lived long enough");

    let mut bench = woken();
    bench.tell(Event::CanaryOk);
    bench.tell(Event::Sleep { deep: false });
    bench.tell(Event::Evidence(good()));
    bench.tell(Event::DozeDone);
    assert_eq!(bench.machine.stage(), Stage::Dozing { by: DozeBy::Freeze });
    assert_eq!(
        bench.tell(Event::ServerGone),
        wake(Cause::ProcessChanged),
        "killed in its next sleep: no demotion"
    );

    let mut bench = Bench::new(Mode::Full);
    bench.deep();
    assert_eq!(bench.tell(Event::ServerGone), wake(Cause::ProcessChanged), "killed asleep: the gate opens");
    assert_eq!(bench.tell(Event::WakeFailed { reason: "no cgroup".into() }), []);
    assert_eq!((bench.machine.stage(), bench.machine.next_deadline()), (Stage::Awake, None));
}

#[test]
fn an_operators_sleep_skips_waiting_but_not_the_checks() {
    let mut bench = Bench::new(Mode::Full);
    let player = |at| Event::Observed(Observation { last_player: Some(at), ..idle() });
    bench.tell(player(secs(999)));
    assert_eq!(refused(&bench.tell(Event::Sleep { deep: false })), "player-here");
    bench.now = secs(1030);
    assert_eq!(bench.tell(Event::Sleep { deep: true }), [Action::GatherEvidence { run_hook: true }]);
    assert_eq!(refused(&bench.tell(Event::Sleep { deep: true })), "underway");
    assert_eq!(bench.tell(Event::Evidence(good())), [Action::EnterDoze { by: DozeBy::Freeze }]);
    assert_eq!(bench.tell(Event::DozeDone), [Action::GoDeep]);
    let deep = Stage::Deep { by: DozeBy::Freeze };
    assert_eq!(bench.tell(Event::DeepDone { bytes: 1 }), [Action::Answer(Ok(deep))]);
    assert_eq!(bench.tell(Event::Sleep { deep: true }), [Action::Answer(Ok(deep))]);

    bench.tell(Event::Wake { keep: Some(kept(None)) });
    assert_eq!(refused(&bench.tell(Event::Sleep { deep: false })), "waking");
    bench.tell(Event::Woken);
    assert_eq!(refused(&bench.tell(Event::Sleep { deep: false })), "kept");
    bench.tell(Event::Release);
    assert_eq!(refused(&bench.tell(Event::Sleep { deep: false })), "canary-running");
    bench.tell(Event::CanaryOk);
    bench.tell(Event::SetMode(Mode::Doze));
    assert_eq!(refused(&bench.tell(Event::Sleep { deep: true })), "mode-doze");
    bench.tell(Event::SetMode(Mode::Observe));
    assert_eq!(refused(&bench.tell(Event::Sleep { deep: false })), "observe");

    let mut bench = Bench::of(Setup { started_at: secs(900), ..setup(Mode::Full) });
    bench.look();
    assert_eq!(refused(&bench.tell(Event::Sleep { deep: false })), "just-started");
}

#[test]
fn an_operators_sleep_is_told_when_a_player_spoils_it() {
    let mut bench = Bench::new(Mode::Full);
    bench.look();
    bench.tell(Event::Evidence(good()));
    bench.tell(Event::Sleep { deep: false });
    let actions = bench.tell(knock(Class::Player));
    assert!(matches!(&actions[..], [Action::Answer(Err(Refusal::Interrupted { .. })), Action::Wake { .. }]));
}

#[test]
fn observe_plays_it_through_on_paper() {
    let mut bench = Bench::new(Mode::Observe);
    assert_eq!(bench.look(), [Action::GatherEvidence { run_hook: false }]);
    let paper = Evidence { save: Save::NotTried, ..good() };
    assert_eq!(bench.tell(Event::Evidence(paper)), [Action::WouldDoze { by: DozeBy::Freeze }]);
    assert_eq!(bench.machine.stage(), Stage::Awake);
    assert_eq!(bench.machine.why().paper, Some(Stage::Dozing { by: DozeBy::Freeze }));
    assert_eq!(bench.refusal(), "observe");
    assert_eq!(bench.tell(knock(Class::Query)), [Action::WouldRefuse { class: Class::Query }]);
    assert_eq!(bench.later(1200, Event::Observed(idle())), [Action::WouldGoDeep]);
    bench.now += secs(100);
    match &bench.tell(knock(Class::Player))[..] {
        [Action::WouldWake { cause: PLAYER, from: Stage::Deep { .. }, after }] => {
            assert_eq!(after.as_secs(), 100);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.look(), []);
    assert_eq!(bench.refusal(), "not-idle");
}

#[test]
fn a_restarted_daemon_adopts_the_sleeper() {
    let mut bench = Bench::new(Mode::Full);
    bench.doze();
    let text = serde_json::to_string(&bench.machine.saved()).unwrap();
    let saved: Saved = serde_json::from_str(&text).unwrap();
    let mut adopted = Machine::adopted(bench.now + secs(5), setup(Mode::Full), saved.clone());
    assert_eq!(adopted.handle(bench.now + secs(6), Event::Observed(frozen())), []);
    assert_eq!(adopted.stage(), Stage::Dozing { by: DozeBy::Freeze });
    assert_eq!(adopted.next_deadline(), Some(bench.now + secs(1200)), "deep_after goes on counting");
    assert_eq!(adopted.handle(bench.now + secs(7), knock(Class::Player)), wake(PLAYER));

    let replaced = Setup { started_at: secs(1), ..setup(Mode::Full) };
    let mut adopted = Machine::adopted(bench.now, replaced, saved);
    assert_eq!(adopted.handle(bench.now, Event::Observed(idle())), wake(Cause::ProcessChanged));

    // In the middle of a change: nobody knows, so it is woken.
    let mut bench = Bench::new(Mode::Full);
    bench.look();
    bench.tell(Event::Evidence(good()));
    let mut adopted = Machine::adopted(bench.now, setup(Mode::Full), bench.machine.saved());
    assert_eq!(adopted.next_deadline(), Some(bench.now));
    assert_eq!(adopted.handle(bench.now, Event::Observed(frozen())), wake(Cause::Doubt));

    let mut bench = Bench::new(Mode::Observe);
    bench.look();
    bench.tell(Event::Evidence(good()));
    assert_eq!(bench.machine.saved().stage, Stage::Awake, "paper is not saved");
}

#[test]
fn every_reason_is_a_sentence() {
    let mut bench = Bench::new(Mode::Full);
    bench.look();
    bench.tell(knock(Class::Player));
    bench.tell(Event::Evidence(good()));
    assert_eq!(bench.machine.why().reason.to_string(), "no player for less than 10m (doze_after)");
}
