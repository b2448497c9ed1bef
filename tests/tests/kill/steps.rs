//! The daemon, the guard and `off` die at every step that they know ([`STEPS`]).

use std::{collections::BTreeSet, net::TcpStream, thread, time::Duration};

use dormouse_daemon::failpoint::STEPS;
use dormouse_tests::{skip, stand::Stand, swap::Swap};
use nix::sys::signal::Signal;

use crate::{case::Case, tally};

/// Reached while a daemon starts.
const START: [&str; 11] = [
    "door-loaded",
    "door-configured",
    "attach-logged",
    "attach-linked",
    "attach-pinned",
    "attach-done",
    "watched",
    "path-probed",
    "cgroup-logged",
    "adopt-settled",
    "bring-up-done",
];
const START_LOOPBACK: [&str; 3] = ["cgroup-linked", "cgroup-pinned", "cgroup-replaced"];
/// Where the door stands already nothing is linked anew.
const FIRST_START_ONLY: [&str; 2] = ["attach-linked", "attach-pinned"];
const LAYOUT: [&str; 2] = ["layout-woken", "layout-unpinned"];
/// Reached by servers that fall asleep and are woken by players on TCP and on UDP.
const CYCLE: [&str; 19] = [
    "store-written",
    "doze-begun",
    "doze-signal",
    "doze-logged",
    "freeze-written",
    "doze-frozen",
    "doze-looked",
    "doze-parked",
    "doze-done",
    "ring-read",
    "wake-begun",
    "wake-given",
    "wake-thawed",
    "wake-draining",
    "wake-replayed",
    "wake-open",
    "wake-done",
    "clerk-begun",
    "clerk-done",
];
const CALLED_OFF: [&str; 1] = ["doze-off-thawed"];
const QUERY: [&str; 4] = ["query-thawed", "query-drained", "query-frozen", "query-parked"];
const DEEP: [&str; 2] = ["deep-begun", "deep-done"];
/// Need controllers of cgroup v2.
const THROTTLE: [&str; 2] = ["throttle-logged", "throttle-written"];
/// As [`THROTTLE`].
const SWAP_LIMIT: [&str; 2] = ["swap-limit-logged", "swap-limit-written"];
const TAKE_DOWN: [&str; 3] = ["unhang-unwatched", "unhang-detached", "take-down-done"];
const OFF: [&str; 5] = ["off-marked", "undo-put-back", "undo-marked", "off-played", "off-unpinned"];
const OFF_SEEN: [&str; 1] = ["off-seen"];
const ON: [&str; 2] = ["on-unmarked", "on-pinned"];
const STOP: [&str; 1] = ["stop-begun"];
const GUARD: [&str; 2] = ["guard-stale", "guard-wakes"];

/// A step that no test comes to fails here.
#[test]
fn every_step_is_killed_at() {
    let lists: [&[&str]; 15] = [
        &START,
        &START_LOOPBACK,
        &LAYOUT,
        &CYCLE,
        &CALLED_OFF,
        &QUERY,
        &DEEP,
        &THROTTLE,
        &SWAP_LIMIT,
        &TAKE_DOWN,
        &OFF,
        &OFF_SEEN,
        &ON,
        &STOP,
        &GUARD,
    ];
    let mine: BTreeSet<&str> = lists.concat().into_iter().collect();
    assert_eq!(mine, STEPS.iter().copied().collect());
}

/// Asked until it agrees: a player may still count. Ends with the daemon.
fn doze(stand: &Stand, index: usize, deep: bool) {
    while !stand.daemon.has_ended() && stand.daemon.sleep_once(&stand.pots[index].name, deep).is_err() {
        thread::sleep(Duration::from_millis(20));
    }
}

/// As it puts a server to sleep.
fn dies_on_its_way(case: &mut Case, step: &str, deep: bool) {
    case.start();
    case.steps.want(step);
    case.kill_at(step, |stand| {
        doze(stand, 0, deep);
        Ok(())
    });
    case.holds(step);
}

/// Players come by both ways, and the server falls asleep between them.
fn cycle(stand: &Stand) -> anyhow::Result<()> {
    doze(stand, 1, false);
    doze(stand, 0, false);
    stand.tcp(0)?;
    doze(stand, 0, false);
    stand.udp(0)?;
    Ok(())
}

#[test]
fn into_the_doze_and_out_of_it() {
    let mut case = Case::prepare(2, "floor = \"dozing\"\n");
    for step in CYCLE {
        case.start();
        case.steps.want(step);
        case.kill_at(step, cycle);
        case.holds(step);
    }
}

/// Without a guard too: the next one, or the next daemon, finds whom to wake.
#[test]
fn with_the_guard_dead_as_well() {
    let mut case = Case::prepare(2, "floor = \"dozing\"\n");
    for (number, step) in
        ["doze-logged", "doze-frozen", "doze-parked", "wake-begun", "wake-draining"].into_iter().enumerate()
    {
        let what = format!("{step}, guard dead");
        case.start();
        case.stand.daemon.guard = None;
        case.steps.want(step);
        // Nobody would wake for a player who comes as it dies.
        case.kill_at(step, |stand| {
            let _ = stand.daemon.sleep_once(&stand.pots[0].name, false);
            let _ = stand.daemon.wake(&stand.pots[0].name);
            Ok(())
        });
        tally::point(&what);
        thread::scope(|scope| {
            let player = scope.spawn(|| {
                let mut stream = case.stand.node.client.run(|| TcpStream::connect(case.stand.address(0)))?;
                std::io::Write::write_all(&mut stream, b"let me in")?;
                stream.set_read_timeout(Some(dormouse_tests::stand::SOON))?;
                anyhow::ensure!(std::io::Read::read(&mut stream, &mut [0; 64])? > 0);
                anyhow::Ok(())
            });
            thread::sleep(Duration::from_millis(300));
            let revived = if number % 2 == 0 { Some(case.spawn("run")) } else { None };
            let daemon = revived.is_none().then(|| {
                let command = case.stand.daemon.command().unwrap();
                let place = dormouse_tests::process::Place::netns(&case.stand.node.netns);
                dormouse_tests::process::Process::spawn("dormoused", command, place).unwrap()
            });
            if let Err(error) = player.join().unwrap() {
                tally::refused(&format!("{what}: {error:#}"));
            }
            drop((revived, daemon));
        });
        case.guard();
        case.holds(&what);
    }
}

/// Somebody comes between the freeze and the second look.
#[test]
fn a_doze_that_is_called_off() {
    let mut case = Case::prepare(2, "floor = \"dozing\"\n");
    for step in CALLED_OFF {
        case.start();
        thread::scope(|scope| {
            let stand = &case.stand;
            case.steps.want("doze-frozen");
            scope.spawn(|| stand.daemon.sleep_once(&stand.pots[0].name, false));
            let held = case.steps.caught(Duration::from_secs(30)).expect("it dozes");
            let player = scope.spawn(|| stand.tcp(0));
            thread::sleep(Duration::from_millis(20));
            case.steps.want(step);
            drop(held);
            let held = case.steps.caught(Duration::from_secs(30)).expect("it is called off");
            stand.daemon.process.as_ref().unwrap().signal(Signal::SIGKILL).unwrap();
            drop(held);
            tally::point(step);
            if let Err(error) = player.join().unwrap() {
                tally::refused(&format!("{step}: {error:#}"));
            }
        });
        case.stand.daemon.process = None;
        case.holds(step);
    }
}

/// Silent connections fill the accept queue until it is emptied by a short thaw.
#[test]
fn a_short_thaw() {
    let mut case = Case::prepare(2, "floor = \"dozing\"\nfirst_speaker = \"client\"\n");
    for step in QUERY {
        case.start();
        case.stand.doze_all().unwrap();
        case.steps.want(step);
        let silent = case.stand.node.client.run(|| {
            (0..24).map(|_| TcpStream::connect(case.stand.address(0))).collect::<Result<Vec<_>, _>>()
        });
        case.kill_at(step, |_| Ok(()));
        case.holds(step);
        drop(silent);
    }
}

#[test]
fn while_it_starts() {
    let mut case = Case::prepare(2, "floor = \"dozing\"\nloopback = \"wake\"\n");
    for step in START.into_iter().chain(START_LOOPBACK) {
        case.steps.want(step);
        case.launch(&[]);
        case.kill_at(step, |_| Ok(()));
        case.holds(step);
        if FIRST_START_ONLY.contains(&step) {
            continue;
        }
        // And with sleepers that another daemon left.
        let what = format!("{step}, adopting");
        case.start();
        case.stand.doze_all().unwrap();
        case.kill_daemon();
        case.steps.want(step);
        case.launch(&[]);
        case.kill_at(step, |_| Ok(()));
        tally::point(&what);
        case.holds(&what);
    }
}

#[test]
fn another_layout_takes_over() {
    let mut case = Case::prepare(2, "floor = \"dozing\"\n");
    for step in LAYOUT {
        case.start();
        case.stand.doze_all().unwrap();
        case.kill_daemon();
        case.steps.want(step);
        case.launch(&[("DORMOUSE_LAYOUT", "next")]);
        case.kill_at(step, |_| Ok(()));
        case.holds(step);
    }
}

#[test]
fn on_the_way_to_deep() {
    let _swap = Swap::ensure(64).unwrap();
    let mut case = Case::prepare(2, "floor = \"deep\"\ndeep_after = \"1h\"\n");
    for step in DEEP {
        dies_on_its_way(&mut case, step, true);
    }
}

/// Where cgroup v2 has no controllers, the VM bench runs this (tests/vm/wakes).
#[test]
fn while_limits_are_changed() {
    let root = dormouse_tests::cgroup::root().unwrap();
    let controllers = std::fs::read_to_string(root.join("cgroup.controllers")).unwrap();
    if !controllers.contains("cpu") || !controllers.contains("memory") {
        let steps = [THROTTLE, SWAP_LIMIT].concat();
        return skip(&format!(
            "kill points {steps:?}: no cpu and memory controllers on cgroup v2: run tests/vm/wakes"
        ));
    }
    let mut case = Case::prepare(2, "floor = \"dozing\"\ndoze_by = \"throttle\"\n");
    for step in THROTTLE {
        dies_on_its_way(&mut case, step, false);
    }
    drop(case);
    let _swap = Swap::ensure(64).unwrap();
    let mut case = Case::prepare(2, "floor = \"deep\"\ndeep_after = \"1h\"\n");
    case.set_limit("memory.swap.max", "0");
    for step in SWAP_LIMIT {
        dies_on_its_way(&mut case, step, true);
    }
}

#[test]
fn a_server_is_given_up() {
    let mut case = Case::prepare(2, "floor = \"dozing\"\n");
    let file = case.stand.daemon.path("state/servers.d/bench-echo0.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    for step in TAKE_DOWN {
        case.start();
        case.stand.doze_all().unwrap();
        std::fs::remove_file(&file).unwrap();
        case.steps.want(step);
        case.stand.daemon.process.as_ref().unwrap().signal(Signal::SIGHUP).unwrap();
        case.kill_at(step, |_| Ok(()));
        std::fs::write(&file, &text).unwrap();
        case.holds(step);
    }
}

/// `off` itself dies in the middle; the guard sees to the sleepers, and the next `off` ends what it began.
#[test]
fn off_dies_half_way() {
    let mut case = Case::prepare(2, "floor = \"dozing\"\n");
    for step in OFF {
        case.start();
        case.stand.doze_all().unwrap();
        case.kill_daemon();
        case.steps.want(step);
        let off = case.spawn("off");
        let held = case.steps.caught(Duration::from_secs(30));
        off.signal(Signal::SIGKILL).unwrap();
        assert!(held.is_some(), "`off` never came to {step}: {}", off.log());
        drop(held);
        tally::point(step);
        case.enter(step, 0);
        case.all_awake(step);
        case.off_restores(step);
        case.start();
        case.all_enter(step);
        case.off_restores(step);
    }
}

/// The daemon dies as it hears of `off`, and as it hears of `on`.
#[test]
fn off_and_on_with_a_daemon_that_dies() {
    let mut case = Case::prepare(2, "floor = \"dozing\"\n");
    for step in OFF_SEEN {
        case.start();
        case.stand.doze_all().unwrap();
        case.steps.want(step);
        let mut off = case.spawn("off");
        case.kill_at(step, |_| Ok(()));
        let ended = off.wait(Duration::from_secs(30)).unwrap();
        assert!(ended.success(), "{}", off.log());
        case.enter(step, 0);
        case.off_restores(step);
    }
    for step in ON {
        case.start();
        case.stand.doze_all().unwrap();
        case.stand.daemon.guard_command("off", &case.stand.node.netns).unwrap();
        case.steps.want(step);
        let on = case.spawn("on");
        if step == "on-unmarked" {
            let held = case.steps.caught(Duration::from_secs(30));
            on.signal(Signal::SIGKILL).unwrap();
            assert!(held.is_some(), "`on` never came to {step}: {}", on.log());
            tally::point(step);
            drop(held);
            case.await_daemon();
            case.all_enter(step);
            case.kill_daemon();
        } else {
            case.kill_at(step, |_| Ok(()));
        }
        case.holds(step);
    }
}

#[test]
fn while_it_stops() {
    let mut case = Case::prepare(2, "floor = \"dozing\"\n");
    for step in STOP {
        case.start();
        case.stand.doze_all().unwrap();
        case.steps.want(step);
        case.stand.daemon.process.as_ref().unwrap().signal(Signal::SIGTERM).unwrap();
        case.kill_at(step, |_| Ok(()));
        case.holds(step);
    }
}

/// The guard dies when it is needed; its successor does what it did not.
#[test]
fn the_guard_dies_at_work() {
    let mut case = Case::prepare(2, "floor = \"dozing\"\n");
    for step in GUARD {
        case.start();
        case.stand.doze_all().unwrap();
        case.steps.want(step);
        case.kill_daemon();
        thread::scope(|scope| {
            // In the time in which the heartbeat is not yet stale his first segment goes to the frozen server.
            let player = scope.spawn(|| case.enter(step, 0));
            let held = case.steps.caught(Duration::from_secs(30));
            let guard = case.stand.daemon.guard.as_ref().unwrap();
            guard.signal(Signal::SIGKILL).unwrap();
            assert!(held.is_some(), "the guard never came to {step}: {}", guard.log());
            drop(held);
            tally::point(step);
            let _successor = case.spawn("run");
            player.join().unwrap();
        });
        case.guard();
        case.holds(step);
    }
}
