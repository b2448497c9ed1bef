//! The server dies, or the daemon hangs; nothing of it keeps a player out.

use std::{process::Command, thread, time::Duration};

use anyhow::ensure;
use dormouse_api::status::Stage;
use dormouse_tests::{
    process::{Place, Process},
    servers::echo::{self, sibling},
    stand::{PORT, SOON, Stand},
};
use nix::sys::signal::Signal;

use crate::{
    case::{Case, PATIENT_NODE},
    tally,
};

/// Longer than the heartbeat may be old.
const STALE: Duration = Duration::from_millis(700);

/// The first server is gone; a new one in its place is played on.
fn replace_server(case: &mut Case, what: &str) {
    tally::point(what);
    let name = case.stand.pots[0].name.clone();
    case.stand
        .wait_until("its end is seen", || {
            let note = case.stand.daemon.server(&name)?.note;
            ensure!(note.is_some(), "it is taken for alive");
            Ok(())
        })
        .unwrap();
    // A thaw is one write(2); an empty cgroup has no event of it.
    let frozen = std::fs::read_to_string(case.stand.pots[0].cgroup.path().join("cgroup.freeze")).unwrap();
    if frozen != "0\n" {
        tally::stuck(&format!("{what}: whoever is started in its place would be frozen"));
    }
    let place = Place::new(&case.stand.node.pods[0].netns, &case.stand.pots[0].cgroup);
    case.stand.pots[0].server = Some(echo::start(place, PORT).unwrap());
    case.enter(what, 0);
}

fn kill_server(stand: &Stand) {
    stand.pots[0].server.as_ref().unwrap().process.signal(Signal::SIGKILL).unwrap();
}

#[test]
fn the_server_dies() {
    let mut case = Case::prepare(1, "floor = \"dozing\"\n");
    case.start();
    case.stand.doze_all().unwrap();
    kill_server(&case.stand);
    replace_server(&mut case, "server, frozen");
    case.await_daemon();
    case.stand.doze_all().unwrap();
    case.all_enter("server, frozen");

    case.stand.doze_all().unwrap();
    let daemon = case.stand.daemon.process.as_ref().unwrap();
    daemon.signal(Signal::SIGSTOP).unwrap();
    let to = case.stand.address(0);
    case.stand.node.client.run(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        for _ in 0..5 {
            socket.send_to(b"parked", to).unwrap();
        }
    });
    kill_server(&case.stand);
    daemon.signal(Signal::SIGCONT).unwrap();
    replace_server(&mut case, "server, packets parked");
    case.off_restores("server, packets parked");
    // To die with a wake is to have not stood the freeze: it is demoted, and another case is needed.
    let mut case = Case::prepare(1, "floor = \"dozing\"\n");
    case.start();
    case.stand.doze_all().unwrap();
    case.steps.want("wake-begun");
    thread::scope(|scope| {
        let stand = &case.stand;
        // His connection ends with the server.
        scope.spawn(|| stand.tcp(0));
        let held = case.steps.caught(SOON).expect("it wakes");
        kill_server(stand);
        drop(held);
    });
    replace_server(&mut case, "server, waking");
    case.off_restores("server, waking");
}

/// Nobody needs the guard while the daemon lives.
#[test]
fn the_guard_dies_alone() {
    let mut case = Case::prepare(2, "floor = \"dozing\"\n");
    case.start();
    case.stand.doze_all().unwrap();
    case.stand.daemon.guard.as_ref().unwrap().signal(Signal::SIGKILL).unwrap();
    tally::point("guard, daemon alive");
    assert_eq!(case.stand.tcp(0).unwrap().retransmissions, 0);
    assert_eq!(case.stand.frozen().unwrap(), [false, true]);
    case.off_restores("guard");
}

/// SIGTERM waits in a frozen cgroup; the server must run to save its world.
#[test]
fn a_sleeper_that_is_told_to_stop_is_woken_for_it() {
    let mut case = Case::prepare(1, "floor = \"dozing\"\n");
    case.stand.pots[0].server = None;
    let mut command = Command::new(sibling("echo-server").unwrap());
    command.args(["--port", &PORT.to_string(), "--saves"]);
    let place = Place::new(&case.stand.node.pods[0].netns, &case.stand.pots[0].cgroup);
    let mut server = Process::spawn("echo-server", command, place).unwrap();
    // A process that is not yet ready for SIGTERM dies of it, frozen or not.
    case.stand.udp(0).unwrap();
    case.start();
    case.stand.doze_all().unwrap();
    server.signal(Signal::SIGTERM).unwrap();
    assert!(server.wait(SOON).unwrap().success(), "it ended by itself");
}

/// A daemon that hangs and goes on: what the guard did meanwhile is found and believed.
#[test]
fn stopped_and_continued_it_is_consistent() {
    let mut case = Case::prepare_on(PATIENT_NODE, 3, "floor = \"dozing\"\n");
    case.start();
    case.stand.doze_all().unwrap();
    let stand = &case.stand;
    let process = stand.daemon.process.as_ref().unwrap();
    process.signal(Signal::SIGSTOP).unwrap();
    tally::point("daemon, stopped");
    thread::sleep(STALE);
    assert_eq!(stand.frozen().unwrap(), [true; 3]);
    assert_eq!(stand.tcp(0).unwrap().retransmissions, 0);
    stand.udp(1).unwrap();
    assert_eq!(stand.frozen().unwrap(), [false, false, true]);
    process.signal(Signal::SIGCONT).unwrap();
    for (pot, stage) in stand.pots.iter().zip([Stage::Awake, Stage::Awake, Stage::Dozing]) {
        stand.daemon.wait_for(&pot.name, stage, SOON).unwrap();
    }
    stand.doze_all().unwrap();
    for index in 0..3 {
        assert_eq!(stand.tcp(index).unwrap().retransmissions, 0);
    }
}

/// A paused VM: the guard was held up as long as the daemon, and leaves the sleepers to it.
#[test]
fn a_machine_that_stood_still_has_no_dead_daemon() {
    const STOOD_STILL: Duration = Duration::from_secs(4);
    let mut case = Case::prepare_on("stale_after = \"2s\"\nguard_limit = \"10m\"", 2, "floor = \"dozing\"\n");
    case.start();
    case.stand.doze_all().unwrap();
    let stand = &case.stand;
    let (daemon, guard) = (stand.daemon.process.as_ref().unwrap(), stand.daemon.guard.as_ref().unwrap());
    // Who has never seen the daemon alive has nothing to wait for.
    let has_seen = || {
        anyhow::ensure!(guard.log().contains("heartbeat is fresh"));
        Ok(())
    };
    stand.wait_until("the guard has seen the daemon", has_seen).unwrap();
    for process in [daemon, guard] {
        process.signal(Signal::SIGSTOP).unwrap();
    }
    tally::point("daemon and guard, stopped");
    thread::sleep(STOOD_STILL);
    for process in [guard, daemon] {
        process.signal(Signal::SIGCONT).unwrap();
    }
    thread::sleep(STOOD_STILL / 2);
    assert!(!guard.log().contains("stale"), "{}", guard.log());
    assert_eq!(stand.frozen().unwrap(), [true; 2]);
    for index in 0..2 {
        assert_eq!(stand.tcp(index).unwrap().retransmissions, 0);
    }
}
