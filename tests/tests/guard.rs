//! The guard and `off`, with the real daemon alive, dead or stopped.

use std::{thread, time::Duration};

use anyhow::ensure;
use dormouse_tests::stand::{SOON, Stand, pins};
use nix::sys::signal::Signal;

/// Longer than the heartbeat may be old in these tests.
const STALE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Daemon {
    Alive,
    Dead,
    Stopped,
}

/// `off` puts back every byte, twice is as good as once, it holds over a restart, and `on` ends it.
fn off_and_on(state: Daemon) {
    let mut stand = Stand::prepare(3, "").unwrap();
    let before = stand.snapshot().unwrap();
    stand.start().unwrap();
    stand.doze_all().unwrap();
    assert_ne!(stand.snapshot().unwrap(), before, "asleep it is another node");
    match state {
        Daemon::Alive => {}
        Daemon::Dead => drop(stand.daemon.end_by(Signal::SIGKILL).unwrap()),
        Daemon::Stopped => {
            stand.daemon.process.as_ref().unwrap().signal(Signal::SIGSTOP).unwrap();
            thread::sleep(STALE);
        }
    }
    for _ in 0..2 {
        let said = stand.daemon.guard_command("off", &stand.node.netns).unwrap();
        assert!(said.ends_with("dormouse is off\n"), "{said}");
        assert_eq!(stand.snapshot().unwrap(), before, "{state:?}: {said}");
    }
    match state {
        Daemon::Alive => drop(stand.daemon.end_by(Signal::SIGTERM).unwrap()),
        Daemon::Dead => {}
        Daemon::Stopped => {
            stand.daemon.process.as_ref().unwrap().signal(Signal::SIGCONT).unwrap();
            stand.daemon.end_by(Signal::SIGTERM).unwrap();
        }
    }
    stand.start_daemon().unwrap();
    // Twice the time after which it would doze.
    thread::sleep(Duration::from_secs(3));
    assert_eq!(stand.frozen().unwrap(), [false; 3], "off holds over a restart");
    assert!(stand.daemon.status().unwrap().node.off);

    stand.daemon.guard_command("on", &stand.node.netns).unwrap();
    stand
        .wait_until("they doze again", || {
            ensure!(stand.frozen()? == [true; 3]);
            Ok(())
        })
        .unwrap();
    for index in 0..3 {
        assert_eq!(stand.tcp(index).unwrap().retransmissions, 0);
    }
}

#[test]
fn off_with_a_living_daemon() {
    off_and_on(Daemon::Alive);
}

#[test]
fn off_with_a_dead_daemon() {
    off_and_on(Daemon::Dead);
}

#[test]
fn off_with_a_stopped_daemon() {
    off_and_on(Daemon::Stopped);
}

/// One daemon through `off` and `on`: the guard must know it again, else it wakes whoever falls asleep.
#[test]
fn a_daemon_that_was_off_is_seen_by_the_guard_again() {
    let mut stand = Stand::prepare(1, "").unwrap();
    stand.start().unwrap();
    stand.daemon.start_guard(&["--stale-after", "300ms"]).unwrap();
    stand.doze_all().unwrap();
    stand.daemon.guard_command("off", &stand.node.netns).unwrap();
    assert_eq!(stand.frozen().unwrap(), [false]);
    stand.daemon.guard_command("on", &stand.node.netns).unwrap();
    stand
        .wait_until("it dozes again", || {
            ensure!(stand.frozen()? == [true]);
            Ok(())
        })
        .unwrap();
    // Longer than the guard takes to lose faith.
    thread::sleep(Duration::from_secs(3));
    assert_eq!(stand.frozen().unwrap(), [true]);
    // And when it does end, the first packet wakes.
    stand.daemon.end_by(Signal::SIGKILL).unwrap();
    thread::sleep(STALE);
    assert_eq!(stand.tcp(0).unwrap().retransmissions, 0);
}

/// `guard_limit` of the daemon's configuration, not only the guard's own flag.
#[test]
fn after_guard_limit_without_a_daemon_all_are_woken() {
    let mut stand = Stand::prepare(2, "").unwrap();
    stand.daemon.configure("guard_limit = \"3s\"").unwrap();
    stand.daemon.start_guard(&[]).unwrap();
    stand.start().unwrap();
    stand.doze_all().unwrap();
    stand.daemon.end_by(Signal::SIGKILL).unwrap();
    thread::sleep(STALE);
    assert_eq!(stand.frozen().unwrap(), [true; 2], "not before");
    stand
        .wait_until("all are awake", || {
            ensure!(stand.frozen()? == [false; 2]);
            Ok(())
        })
        .unwrap();
    // What the guard thawed is believed by the next daemon: their gates open.
    stand.start_daemon().unwrap();
    for index in 0..2 {
        stand.tcp(index).unwrap();
        stand.udp(index).unwrap();
    }
}

/// The guard's own SIGTERM with nobody left to wake: all are woken. With a living daemon: none.
#[test]
fn the_guard_leaves_nobody_behind() {
    let mut stand = Stand::prepare(2, "").unwrap();
    stand.daemon.start_guard(&[]).unwrap();
    stand.start().unwrap();
    stand.doze_all().unwrap();
    let end = |stand: &mut Stand| {
        let mut guard = stand.daemon.guard.take().unwrap();
        guard.signal(Signal::SIGTERM).unwrap();
        assert!(guard.wait(SOON).unwrap().success());
    };
    end(&mut stand);
    assert_eq!(stand.frozen().unwrap(), [true; 2], "the daemon works");
    stand.daemon.start_guard(&[]).unwrap();
    stand.daemon.end_by(Signal::SIGKILL).unwrap();
    thread::sleep(STALE);
    end(&mut stand);
    assert_eq!(stand.frozen().unwrap(), [false; 2]);
}

/// Killed itself, the guard harms nobody, and the next one guards.
#[test]
fn a_killed_guard_is_replaced() {
    let mut stand = Stand::prepare(1, "").unwrap();
    stand.daemon.start_guard(&[]).unwrap();
    stand.start().unwrap();
    stand.doze_all().unwrap();
    let guard = stand.daemon.guard.as_mut().unwrap();
    guard.signal(Signal::SIGKILL).unwrap();
    guard.wait(SOON).unwrap();
    stand.daemon.end_by(Signal::SIGKILL).unwrap();
    thread::sleep(STALE);
    assert_eq!(stand.frozen().unwrap(), [true]);
    stand.daemon.start_guard(&[]).unwrap();
    stand.tcp(0).unwrap();
}

/// Nothing is left after the daemon was taken off: no pins, no frozen cgroup.
#[test]
fn off_leaves_no_pins() {
    let mut stand = Stand::prepare(1, "").unwrap();
    stand.start().unwrap();
    stand.doze_all().unwrap();
    assert!(!pins(stand.daemon.pin_dir()).is_empty());
    stand.daemon.end_by(Signal::SIGTERM).unwrap();
    stand.daemon.guard_command("off", &stand.node.netns).unwrap();
    assert!(!stand.daemon.pin_dir().exists());
    assert_eq!(stand.frozen().unwrap(), [false]);
    assert!(pins(&stand.daemon.path("run/undo")).is_empty(), "the undo log is empty");
}
