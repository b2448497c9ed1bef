//! The daemon is gone for a while, and another one takes over: sleepers sleep on, and every player gets in.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use dormouse_api::status::Stage;
use dormouse_tests::{
    clients,
    stand::{SOON, Stand, pins, udp_until_answered},
};
use nix::sys::signal::Signal;

use crate::{
    case::{Case, PATIENT_NODE},
    tally,
};

/// Longer than the heartbeat may be old.
const STALE: Duration = Duration::from_millis(700);
const DOZE: &str = "floor = \"dozing\"\n";

fn asleep(node: &str, count: u8) -> Case {
    let mut case = Case::prepare_on(node, count, DOZE);
    case.start();
    case.stand.doze_all().unwrap();
    case
}

/// Those sleep, in the books of a restarted daemon too, and were not woken for it.
fn assert_adopted(stand: &Stand, dozing: &[bool]) {
    let log = stand.daemon.log();
    for (pot, _) in stand.pots.iter().zip(dozing).filter(|(_, dozing)| **dozing) {
        stand.daemon.wait_for(&pot.name, Stage::Dozing, SOON).unwrap();
        assert!(pot.cgroup.is_frozen().unwrap(), "{}", pot.name);
        let woken = log.lines().find(|line| line.contains("waking") && line.contains(&pot.name));
        assert_eq!(woken, None, "{log}");
    }
}

#[test]
fn killed_it_wakes_nobody_and_players_get_in_by_the_guard() {
    let mut case = asleep(PATIENT_NODE, 3);
    case.kill_daemon();
    tally::point("daemon, all asleep");
    thread::sleep(STALE);
    assert_eq!(case.stand.frozen().unwrap(), [true; 3], "nobody knocked");

    let answer = case.stand.tcp(0).unwrap();
    assert_eq!(answer.retransmissions, 0, "the first packet passes and wakes");
    assert_eq!(case.stand.frozen().unwrap(), [false, true, true], "exactly that one");
    case.stand.udp(1).unwrap();
    assert_eq!(case.stand.frozen().unwrap(), [false, false, true], "exactly that one");

    case.start();
    assert_adopted(&case.stand, &[false, false, true]);
    assert_eq!(case.stand.tcp(2).unwrap().retransmissions, 0, "the restarted daemon wakes the third");
    case.stand.daemon.wait_for(&case.stand.pots[2].name, Stage::Awake, SOON).unwrap();
    // And all of them fall asleep and wake as ever.
    case.stand.doze_all().unwrap();
    for index in 0..3 {
        assert_eq!(case.stand.tcp(index).unwrap().retransmissions, 0);
    }
    case.off_restores("killed, all asleep");
}

#[test]
fn a_restart_adopts_sleepers_and_wakes_nobody() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut case = asleep(PATIENT_NODE, 2);
        let links = pins(case.stand.daemon.pin_dir());
        case.stand.daemon.end_by(signal).unwrap();
        assert_eq!(case.stand.frozen().unwrap(), [true; 2], "{signal}");
        case.start();
        assert_adopted(&case.stand, &[true; 2]);
        assert_eq!(pins(case.stand.daemon.pin_dir()), links, "the same pins");
        // Longer than it takes to look at them.
        thread::sleep(Duration::from_secs(2));
        assert_adopted(&case.stand, &[true; 2]);
        assert_eq!(case.stand.tcp(0).unwrap().retransmissions, 0, "{signal}");
        case.stand.udp(1).unwrap();
        case.off_restores("restart");
    }
}

/// Who came in the moment in which nobody read the ring is given back by the next daemon.
#[test]
fn who_was_parked_while_no_daemon_ran_gets_in() {
    let mut case = asleep("stale_after = \"5s\"", 2);
    let stand = &mut case.stand;
    stand.daemon.guard = None;
    stand.daemon.process.as_ref().unwrap().signal(Signal::SIGSTOP).unwrap();
    let (tcp, udp) = (stand.address(0), stand.address(1));
    let mut client = stand.node.client.run(|| TcpStream::connect(tcp)).unwrap();
    let socket = stand.node.client.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    socket.connect(udp).unwrap();
    client.write_all(b"parked").unwrap();
    socket.send(b"first").unwrap();
    socket.send(b"second").unwrap();
    stand.daemon.end_by(Signal::SIGKILL).unwrap();
    tally::point("daemon, packets parked");
    stand.start_daemon().unwrap();
    let mut buffer = [0; 256];
    client.set_read_timeout(Some(SOON)).unwrap();
    assert!(client.read(&mut buffer).unwrap() > 0);
    socket.set_read_timeout(Some(SOON)).unwrap();
    for word in ["first", "second"] {
        let len = socket.recv(&mut buffer).unwrap();
        let answer = String::from_utf8_lossy(&buffer[..len]).into_owned();
        assert!(answer.contains(word), "{answer} instead of {word}");
    }
    case.off_restores("packets parked");
}

/// How long a player took, and how many packets he sent again.
fn join(stand: &Stand, index: usize, by_udp: bool) -> (Duration, u32) {
    let to: SocketAddr = stand.address(index);
    let started = Instant::now();
    let again = stand.node.client.run(|| {
        if by_udp {
            udp_until_answered(to).map(|sent| sent - 1)
        } else {
            clients::echo::tcp(to, b"let me in", SOON).map(|answer| answer.retransmissions)
        }
    });
    match again {
        Ok(again) => {
            tally::entered(started.elapsed());
            (started.elapsed(), again)
        }
        Err(error) => tally::refused(&format!("server {index}: {error:#}")),
    }
}

/// All at once; the times of each group, sorted, and what was sent again.
fn join_all(stand: &Stand, who: std::ops::Range<usize>) -> [(Vec<Duration>, u32); 2] {
    let joined: Vec<_> = thread::scope(|scope| {
        let joins: Vec<_> =
            who.map(|index| scope.spawn(move || join(stand, index, index % 2 == 1))).collect();
        joins.into_iter().map(|join| join.join().unwrap()).collect()
    });
    [0, 1].map(|way| {
        let group = joined.iter().skip(way).step_by(2);
        let mut times: Vec<_> = group.clone().map(|(time, _)| *time).collect();
        times.sort();
        (times, group.map(|(_, again)| again).sum())
    })
}

fn print(what: &str, [tcp, udp]: &[(Vec<Duration>, u32); 2]) {
    for (way, (times, again)) in [("TCP", tcp), ("UDP", udp)] {
        println!(
            "gone: {what}, {way}: {} players, {:.1?} to {:.1?}, {again} packets sent again",
            times.len(),
            times.first().copied().unwrap_or_default(),
            times.last().copied().unwrap_or_default(),
        );
    }
}

/// Seconds without a daemon; `scripts/test long` sets it to five minutes.
fn gone_for() -> Duration {
    let seconds = std::env::var("DORMOUSE_GONE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(10))
}

/// Fifty sleepers and no daemon. (`stale_after` is a second here: ten players must come before it is over.)
#[test]
fn the_daemon_is_gone_for_long() {
    let mut case = asleep("stale_after = \"1s\"\nguard_limit = \"20m\"", 50);
    case.kill_daemon();
    tally::point("daemon, gone for long");
    let killed = Instant::now();
    let stand = &case.stand;
    let before = join_all(stand, 0..10);
    print("came before the heartbeat was stale", &before);
    while killed.elapsed() < gone_for() {
        thread::sleep(Duration::from_millis(500));
        assert_eq!(stand.frozen().unwrap()[10..], [true; 40], "nobody knocked on them");
    }
    let after = join_all(stand, 10..30);
    print("came after that", &after);
    assert_eq!((after[0].1, after[1].1), (0, 0), "the first packet is the one that wakes");
    assert_eq!(stand.frozen().unwrap()[30..], [true; 20], "nobody knocked on them");

    case.start();
    let mut adopted = [false; 50];
    adopted[30..].fill(true);
    assert_adopted(&case.stand, &adopted);
    let restarted = join_all(&case.stand, 30..50);
    print("came after the restart", &restarted);
    assert_eq!(restarted[0].1, 0, "no segment was sent again");
    case.off_restores("gone for long");
}

/// The real `stale_after`, 2 s, as it is without a word in the configuration.
#[test]
fn with_the_default_of_two_seconds() {
    let mut case = asleep("guard_limit = \"10m\"", 4);
    case.kill_daemon();
    tally::point("daemon, 2 s");
    let killed = Instant::now();
    print("2 s, came at once", &join_all(&case.stand, 0..2));
    assert!(killed.elapsed() > Duration::from_secs(1), "the guard waits for two seconds");
    thread::sleep(Duration::from_millis(2500).saturating_sub(killed.elapsed()));
    assert_eq!(case.stand.frozen().unwrap()[2..], [true; 2]);
    let after = join_all(&case.stand, 2..4);
    print("2 s, came after that", &after);
    assert_eq!((after[0].1, after[1].1), (0, 0), "the first packet is the one that wakes");
    case.off_restores("2 s");
}

/// From one release to the next and back, with sleepers and with players on their way.
#[test]
fn an_upgrade_and_the_way_back() {
    // A guard of another release can't tell who is knocked on: a heartbeat late by more than this wakes all.
    let mut case = asleep("stale_after = \"1s\"\nguard_limit = \"10m\"", 4);
    for layout in ["next", dormouse_abi::LAYOUT] {
        let what = format!("to layout {layout}");
        // The old daemon ends as an upgrade ends it; nobody is awake.
        case.stand.daemon.end_by(Signal::SIGTERM).unwrap();
        assert_eq!(case.stand.frozen().unwrap(), [true; 4], "{what}");
        tally::point(&what);
        case.launch(&[("DORMOUSE_LAYOUT", layout)]);
        print(&what, &join_all(&case.stand, 0..2));
        case.await_daemon();
        assert!(
            case.stand.daemon.log().contains("another layout"),
            "it says so: {}",
            case.stand.daemon.log()
        );
        // They were thawed first, and nothing of the old layout is left.
        case.all_awake(&what);
        let left: Vec<_> = pins(case.stand.daemon.pin_dir());
        let ours = case.stand.daemon.pin_dir().join(layout).display().to_string();
        assert!(left.iter().all(|pin| pin.starts_with(&ours)), "{left:#?}");
        case.all_enter(&what);
        // They sleep and wake as ever, and a guard of another release leaves them alone.
        case.stand.doze_all().unwrap();
        thread::sleep(STALE * 4);
        assert_eq!(case.stand.frozen().unwrap(), [true; 4], "{what}: the guard takes the daemon for dead");
        for index in 0..4 {
            assert_eq!(case.stand.tcp(index).unwrap().retransmissions, 0, "{what}");
        }
        case.stand.doze_all().unwrap();
    }
    // With the same layout nobody is woken, and who comes in the middle gets in.
    case.stand.daemon.end_by(Signal::SIGTERM).unwrap();
    thread::scope(|scope| {
        let stand = &case.stand;
        let players = scope.spawn(|| join_all(stand, 0..2));
        print("same layout", &players.join().unwrap());
    });
    case.start();
    assert_adopted(&case.stand, &[false, false, true, true]);
    case.off_restores("upgrade");
}
