//! One test a rule of the way down, of queries, and of a player's wake.

use super::*;

#[test]
fn the_whole_road_down_and_up() {
    let mut bench = Bench::new(Mode::Full);
    bench.deep();
    assert_eq!(bench.machine.next_deadline(), None);
    assert_eq!(bench.tell(knock(Class::Noise)), []);
    assert_eq!(bench.tell(knock(Class::Player)), wake(PLAYER));
    assert_eq!(bench.tell(knock(Class::Player)), [], "it is waking already");
    assert_eq!(bench.tell(Event::Woken), WOKEN);
    assert_eq!(bench.tell(Event::CanaryOk), []);
    assert_eq!(bench.machine.stage(), Stage::Awake);
    bench.look();
    assert_eq!(bench.refusal(), "not-idle");
}

#[test]
fn waiting_times_all_hold_and_the_deadline_is_the_last() {
    let mut setup = setup(Mode::Full);
    setup.started_at = secs(900);
    let mut bench = Bench::of(setup);
    let here = Observation { last_player: Some(secs(990)), ..idle() };
    assert_eq!(bench.tell(Event::Observed(here)), []);
    assert_eq!(bench.refusal(), "not-idle");
    assert_eq!(bench.machine.next_deadline(), Some(secs(1590)), "990 + doze_after, after 900 + grace");
    assert_eq!(bench.machine.why().next, Some(Next::Doze { at: secs(1590) }));
    assert_eq!(bench.machine.handle(secs(1589), Event::Observed(idle())), []);
    assert_eq!(
        bench.machine.handle(secs(1590), Event::Observed(idle())),
        [Action::GatherEvidence { run_hook: true }]
    );
    assert_eq!(bench.machine.next_deadline(), None, "the answer is waited for");
}

#[test]
fn a_player_from_before_the_door_counts_as_now() {
    let mut machine = Machine::new(secs(5000), setup(Mode::Full));
    assert_eq!(machine.handle(secs(5001), Event::Observed(idle())), []);
    assert_eq!(machine.next_deadline(), Some(secs(5600)));
}

#[test]
fn min_awake_holds_after_a_wake() {
    let mut bench = Bench::new(Mode::Full);
    bench.machine.handle(
        bench.now,
        Event::SetLimits(Limits { doze_after: secs(5), min_awake: secs(3000), ..limits() }),
    );
    bench.doze();
    bench.tell(Event::Wake { keep: None });
    bench.tell(Event::Woken);
    bench.tell(Event::CanaryOk);
    bench.later(100, Event::Observed(idle()));
    assert_eq!(bench.refusal(), "min-awake");
    assert_eq!(bench.later(2900, Event::Observed(idle())), [Action::GatherEvidence { run_hook: true }]);
}

#[test]
fn without_evidence_throttle_and_without_throttle_awake() {
    let mut bench = Bench::new(Mode::Full);
    bench.look();
    assert_eq!(bench.tell(Event::Evidence(bad())), [Action::EnterDoze { by: DozeBy::Throttle }]);
    bench.tell(Event::DozeDone);
    let Reason::Asleep { throttled: Some(why), .. } = bench.machine.why().reason else { panic!() };
    assert_eq!(why.code(), "watchdog-on");

    let no_cpu = || Event::Observed(Observation { cpu_controller: false, ..idle() });
    let mut bench = Bench::new(Mode::Full);
    bench.tell(no_cpu());
    assert_eq!(bench.tell(Event::Evidence(bad())), [Action::RunAfterWake]);
    assert_eq!(bench.refusal(), "no-cpu-controller");
    assert_eq!(bench.tell(no_cpu()), [], "the save hook isn't run again at once");
    assert_eq!(bench.later(60, no_cpu()), [Action::GatherEvidence { run_hook: true }]);
    bench.tell(Event::Evidence(bad()));
    assert_eq!(bench.later(60, no_cpu()), [], "and each time later");

    let mut bench = Bench::new(Mode::Full);
    bench.tell(Event::SetLimits(Limits { doze_by: DozeBy::Throttle, ..limits() }));
    assert_eq!(bench.tell(no_cpu()), [], "known without evidence");
    assert_eq!(bench.refusal(), "no-cpu-controller");
}

#[test]
fn untimed_gates_have_their_reasons() {
    let obstacle = Obstacle { code: "door-not-on-path", text: "packets miss the door".into() };
    let cases = [
        (Observation { cpu_percent: 51, ..idle() }, "busy-cpu"),
        (Observation { obstacle: Some(obstacle), ..idle() }, "door-not-on-path"),
        (Observation { frozen: true, ..idle() }, "frozen-by-other"),
    ];
    for (seen, code) in cases {
        let mut bench = Bench::new(Mode::Full);
        assert_eq!(bench.tell(Event::Observed(seen)), []);
        assert_eq!(bench.refusal(), code);
        assert_eq!(bench.machine.next_deadline(), None, "{code}");
    }
}

#[test]
fn a_login_at_any_step_gets_in() {
    // While evidence is gathered.
    let mut bench = Bench::new(Mode::Full);
    bench.look();
    bench.tell(knock(Class::Player));
    assert_eq!(bench.tell(Event::Evidence(good())), [Action::RunAfterWake]);
    // While the doze is entered: every order of the reports.
    let entering = || {
        let mut bench = Bench::new(Mode::Full);
        bench.look();
        bench.tell(Event::Evidence(good()));
        bench
    };
    let mut bench = entering();
    assert_eq!(bench.tell(knock(Class::Player)), wake(PLAYER));
    assert_eq!(bench.tell(Event::DozeAborted { reason: "overtaken".into() }), []);
    assert_eq!(bench.tell(Event::Woken), WOKEN);

    let mut bench = entering();
    assert_eq!(bench.tell(Event::Woken), WOKEN, "the door was faster");
    assert_eq!(bench.tell(Event::DozeDone), wake(Cause::Doubt), "is it asleep after all?");
    assert_eq!(bench.tell(Event::Woken), [Action::RunAfterWake], "the canary runs already");

    let mut bench = entering();
    assert_eq!(bench.tell(Event::DozeAborted { reason: "a login".into() }), [Action::RunAfterWake]);
    assert_eq!(bench.look(), []);
    assert_eq!(bench.refusal(), "doze-failed");
    // Asleep, told by the door only through its map.
    let mut bench = Bench::new(Mode::Full);
    bench.doze();
    let seen = Observation { last_player: Some(bench.now), ..frozen() };
    assert_eq!(bench.tell(Event::Observed(seen)), wake(PLAYER));
}

#[test]
fn a_knock_stops_the_page_out_and_its_late_answer_changes_nothing() {
    let mut bench = Bench::new(Mode::Full);
    bench.doze();
    bench.later(1200, Event::Observed(frozen()));
    assert_eq!(bench.tell(knock(Class::Player)), [Action::StopDeep, Action::Wake { cause: PLAYER }]);
    bench.tell(Event::Woken);
    bench.tell(Event::CanaryOk);
    bench.tell(Event::DeepDone { bytes: 1 });
    assert_eq!(bench.machine.stage(), Stage::Awake);
}

#[test]
fn pressure_stops_the_page_out_and_backs_off() {
    let mut bench = Bench::new(Mode::Full);
    bench.doze();
    bench.later(1200, Event::Observed(frozen()));
    assert_eq!(bench.tell(Event::Pressure), [Action::StopDeep]);
    assert_eq!(bench.tell(Event::Pressure), []);
    assert_eq!(bench.tell(Event::DeepAborted { reason: "pressure".into() }), []);
    let why = bench.machine.why().reason;
    let Reason::Asleep { not_deeper: Some(refusal), .. } = why else { panic!("{why:?}") };
    assert_eq!(refusal.to_string(), "page-out stopped: pressure");
    assert_eq!(bench.tell(Event::PoolLow), [], "held back");
    assert_eq!(bench.later(60, Event::Observed(frozen())), [Action::GoDeep]);
}

#[test]
fn a_low_pool_does_not_wait_for_deep_after() {
    let mut bench = Bench::new(Mode::Full);
    bench.doze();
    assert_eq!(bench.tell(Event::PoolLow), [Action::GoDeep]);
    assert_eq!(bench.tell(Event::PoolLow), []);
}

#[test]
fn a_spent_budget_rests_awake_and_says_until_when() {
    let mut bench = Bench::new(Mode::Full);
    bench.tell(Event::SetLimits(Limits { wakes_per_hour: 1, ..limits() }));
    bench.doze();
    let woken_at = bench.now + Duration::from_millis(1);
    assert_eq!(bench.tell(knock(Class::Player)), wake(PLAYER));
    bench.tell(Event::Woken);
    bench.tell(Event::CanaryOk);
    assert_eq!(bench.later(700, Event::Observed(idle())), []);
    assert_eq!(bench.refusal(), "wakes-spent");
    assert_eq!(bench.machine.next_deadline(), Some(woken_at + secs(3600)));
    assert_eq!(refused(&bench.tell(Event::Sleep { deep: false })), "wakes-spent");
    assert_eq!(bench.later(2900, Event::Observed(idle())), [Action::GatherEvidence { run_hook: true }]);
}

#[test]
fn a_spoofable_game_with_a_spent_budget_dozes_but_never_deep() {
    let mut bench = Bench::of(Setup { spoofable: true, ..setup(Mode::Full) });
    bench.tell(Event::SetLimits(Limits { wakes_per_hour: 1, ..limits() }));
    bench.doze();
    bench.tell(knock(Class::Player));
    bench.tell(Event::Woken);
    bench.tell(Event::CanaryOk);
    bench.now += secs(700);
    bench.doze();
    assert_eq!(bench.later(1200, Event::Observed(frozen())), []);
    let Reason::Asleep { not_deeper: Some(refusal), .. } = bench.machine.why().reason else { panic!() };
    assert_eq!(refusal.code(), "wakes-spent");
    assert_eq!(bench.tell(Event::PoolLow), []);
    assert_eq!(bench.later(1700, Event::Observed(frozen())), [Action::GoDeep]);
}

#[test]
fn queries_get_a_thaw_now_and_then() {
    let mut bench = Bench::new(Mode::Doze);
    bench.doze();
    assert_eq!(bench.tell(knock(Class::Query)), [Action::QueryThaw]);
    assert_eq!(bench.tell(knock(Class::Query)), [], "one at a time");
    let thawed = Event::Observed(idle());
    assert_eq!(bench.tell(thawed), [], "our own thaw is nobody else's");
    assert_eq!(bench.tell(Event::ThawDone), []);
    let due = bench.machine.next_deadline().expect("a query waits");
    assert_eq!(bench.machine.handle(due, Event::Observed(frozen())), [Action::QueryThaw]);
    bench.now = due;
    bench.tell(Event::ThawDone);
    assert_eq!(bench.machine.next_deadline(), None);
    assert_eq!(bench.later(3, knock(Class::Probe)), [Action::QueryThaw], "the last is old: at once");
    assert_eq!(bench.machine.stage(), Stage::Dozing { by: DozeBy::Freeze });
}

#[test]
fn a_throttled_server_answers_by_itself() {
    let mut bench = Bench::new(Mode::Full);
    bench.look();
    bench.tell(Event::Evidence(bad()));
    bench.tell(Event::DozeDone);
    assert_eq!(bench.tell(knock(Class::Query)), []);
    assert_eq!(bench.machine.thaw_at(), None);
}

#[test]
fn a_filling_accept_queue_is_emptied() {
    let queue = |waiting| {
        Event::Observed(Observation { accept_queue: Some(AcceptQueue { waiting, backlog: 128 }), ..frozen() })
    };
    let mut bench = Bench::new(Mode::Doze);
    bench.doze();
    assert_eq!(bench.tell(queue(15)), []);
    assert_eq!(bench.tell(queue(16)), [Action::QueryThaw], "an eighth, and all is quiet");
    bench.tell(Event::ThawDone);
    bench.now += secs(10);
    bench.tell(knock(Class::Noise));
    let knocked = bench.now;
    assert_eq!(bench.tell(queue(16)), [], "not in a busy moment");
    assert_eq!(bench.machine.next_deadline(), Some(knocked + QUIET_DOOR), "in the next quiet one");
    bench.now += QUIET_DOOR;
    assert_eq!(bench.tell(Event::Observed(frozen())), [Action::QueryThaw]);
    bench.tell(Event::ThawDone);
    bench.now += secs(10);
    bench.tell(knock(Class::Noise));
    assert_eq!(bench.tell(queue(64)), [Action::QueryThaw], "half of it at once");
}

#[test]
fn a_long_accept_queue_is_emptied_as_early() {
    let queue = |waiting| AcceptQueue { waiting, backlog: 4096 };
    let observed = |queue| Event::Observed(Observation { accept_queue: Some(queue), ..frozen() });
    let mut bench = Bench::new(Mode::Doze);
    bench.doze();
    assert_eq!(bench.tell(observed(queue(15))), []);
    assert_eq!(bench.tell(observed(queue(16))), [Action::QueryThaw]);
}

#[test]
fn a_person_is_erased_and_the_keep_goes_on() {
    let mut bench = Bench::new(Mode::Full);
    let address = std::net::SocketAddr::from(([192, 0, 2, 1], 4000));
    bench.tell(Event::Keep(kept(None)));
    bench.machine.cause = Some(Cause::Player { from: Some(address) });
    assert_eq!(bench.machine.erase("berta", "erased"), (false, true), "every address goes");
    assert_eq!(bench.machine.why().last_cause, Some(PLAYER));
    let refusal = Refusal::Kept { owner: "anna".into(), reason: "LAN party".into() };
    bench.machine.cause = Some(Cause::NotAllowed(refusal));
    assert_eq!(bench.machine.erase("anna", "erased"), (true, true));
    assert_eq!(bench.machine.erase("anna", "erased"), (false, false));
    assert_eq!(bench.machine.kept().map(|kept| kept.owner.as_str()), Some("erased"));
    assert!(!format!("{:?}", bench.machine.why()).contains("anna"));
}
