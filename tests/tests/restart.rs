//! The daemon dies, hangs, restarts: sleepers sleep on, and every player gets in.

use std::{process::Command, thread, time::Duration};

use dormouse_api::status::Stage;
use dormouse_tests::{
    process::{Place, Process},
    servers::echo::sibling,
    stand::{PORT, SOON, Stand},
};
use nix::sys::signal::Signal;

/// Longer than the heartbeat may be old in these tests.
const STALE: Duration = Duration::from_secs(1);

fn asleep(count: u8) -> Stand {
    let mut stand = Stand::prepare(count, "").unwrap();
    stand.daemon.start_guard(&[]).unwrap();
    stand.start().unwrap();
    stand.doze_all().unwrap();
    stand
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
    let mut stand = asleep(3);
    stand.daemon.end_by(Signal::SIGKILL).unwrap();
    thread::sleep(STALE);
    assert_eq!(stand.frozen().unwrap(), [true; 3], "nobody knocked");

    let answer = stand.tcp(0).unwrap();
    assert_eq!(answer.retransmissions, 0, "the first packet passes and wakes");
    assert_eq!(stand.frozen().unwrap(), [false, true, true], "exactly that one");
    stand.udp(1).unwrap();
    assert_eq!(stand.frozen().unwrap(), [false, false, true], "exactly that one");

    stand.start_daemon().unwrap();
    assert_adopted(&stand, &[false, false, true]);
    assert_eq!(stand.tcp(2).unwrap().retransmissions, 0, "the restarted daemon wakes the third");
    stand.daemon.wait_for(&stand.pots[2].name, Stage::Awake, SOON).unwrap();
    // And all of them fall asleep and wake as ever.
    stand.doze_all().unwrap();
    for index in 0..3 {
        assert_eq!(stand.tcp(index).unwrap().retransmissions, 0);
    }
}

#[test]
fn a_restart_adopts_sleepers_and_wakes_nobody() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut stand = asleep(2);
        let links = dormouse_tests::stand::pins(stand.daemon.pin_dir());
        stand.daemon.end_by(signal).unwrap();
        assert_eq!(stand.frozen().unwrap(), [true; 2], "{signal}");
        stand.start_daemon().unwrap();
        assert_adopted(&stand, &[true; 2]);
        assert_eq!(dormouse_tests::stand::pins(stand.daemon.pin_dir()), links, "the same pins");
        // Longer than it takes to look at them.
        thread::sleep(Duration::from_secs(2));
        assert_adopted(&stand, &[true; 2]);
        assert_eq!(stand.tcp(0).unwrap().retransmissions, 0, "{signal}");
        stand.udp(1).unwrap();
    }
}

/// Who came in the moment in which nobody read the ring is given back by the next daemon.
#[test]
fn who_was_parked_while_no_daemon_ran_gets_in() {
    let mut stand = Stand::prepare(2, "").unwrap();
    stand.start().unwrap();
    stand.doze_all().unwrap();
    stand.daemon.process.as_ref().unwrap().signal(Signal::SIGSTOP).unwrap();
    let (tcp, udp) = (stand.address(0), stand.address(1));
    let mut client = stand.node.client.run(|| std::net::TcpStream::connect(tcp)).unwrap();
    let socket = stand.node.client.run(|| std::net::UdpSocket::bind("0.0.0.0:0")).unwrap();
    socket.connect(udp).unwrap();
    std::io::Write::write_all(&mut client, b"parked").unwrap();
    socket.send(b"first").unwrap();
    socket.send(b"second").unwrap();
    stand.daemon.end_by(Signal::SIGKILL).unwrap();
    stand.start_daemon().unwrap();
    let mut buffer = [0; 256];
    client.set_read_timeout(Some(SOON)).unwrap();
    assert!(std::io::Read::read(&mut client, &mut buffer).unwrap() > 0);
    socket.set_read_timeout(Some(SOON)).unwrap();
    for word in ["first", "second"] {
        let len = socket.recv(&mut buffer).unwrap();
        let answer = String::from_utf8_lossy(&buffer[..len]).into_owned();
        assert!(answer.contains(word), "{answer} instead of {word}");
    }
}

/// Every place between two steps that change something, in the order in which a server comes to them: on the way
/// to the door, into the doze, out again.
const PLACES: [&str; 21] = [
    "attach-begun",
    "attach-noted",
    "attach-done",
    "watched",
    "store-written",
    "doze-begun",
    "doze-signal",
    "doze-logged",
    "doze-frozen",
    "doze-looked",
    "doze-parked",
    "doze-done",
    "wake-begun",
    "wake-thawed",
    "wake-draining",
    "wake-replayed",
    "wake-open",
    "wake-done",
    "clerk-begun",
    "udp:ring-read",
    "udp:wake-thawed",
];

/// A player who comes just as the server falls asleep calls that off, and the next try waits a minute.
const MOST_PLAYERS: u32 = 60;

/// The daemon dies at each place in turn. With the guard a player gets in, without a daemon and with the next
/// one; whoever is not knocked on is awake after `guard_limit`; `off` restores every byte.
#[test]
fn killed_at_every_step_nobody_is_stuck() {
    let (mut stuck, mut refused) = (vec![], vec![]);
    let mut stand = Stand::prepare(2, "").unwrap();
    stand.daemon.configure("guard_limit = \"3s\"").unwrap();
    let before = stand.snapshot().unwrap();
    for place in PLACES {
        let (udp, place) = place.strip_prefix("udp:").map_or((false, place), |place| (true, place));
        stand.daemon.start_guard(&["--stale-after", "300ms", "--guard-limit", "3s"]).unwrap();
        // It may die before it answers.
        let _ = stand.daemon.launch(&stand.node.netns, &[("DORMOUSE_DIE_AT", place)]);
        thread::scope(|scope| {
            // Players come all the time: some wake it, some meet it on its way, one meets the dead daemon.
            let stand = &stand;
            let player = scope.spawn(move || {
                let mut came = 0;
                while !stand.daemon.has_ended() && came < MOST_PLAYERS {
                    // Longer than it takes to doze.
                    thread::sleep(Duration::from_millis(1700));
                    let got_in = if udp { stand.udp(0).map(drop) } else { stand.tcp(0).map(drop) };
                    if let Err(error) = got_in {
                        return Some(format!("{place}: {error:#}"));
                    }
                    came += 1;
                }
                (came == MOST_PLAYERS).then(|| format!("{place}: nobody ever came there"))
            });
            refused.extend(player.join().unwrap());
        });
        // Nobody knocks on the second one.
        let freed = stand.wait_until(place, || {
            anyhow::ensure!(stand.frozen()? == [false; 2]);
            Ok(())
        });
        if let Err(error) = freed {
            stuck.push(format!("{place}: {error:#}"));
        }
        stand.daemon.process = None;
        // The next daemon makes sense of what it finds.
        stand.start_daemon().unwrap();
        for index in 0..2 {
            if let Err(error) = stand.tcp(index).and_then(|_| stand.udp(index)) {
                refused.push(format!("{place}, afterwards: {error:#}\n{}", stand.daemon.log()));
            }
        }
        stand.daemon.end_by(Signal::SIGKILL).unwrap();
        stand.daemon.guard = None;
        stand.daemon.guard_command("off", &stand.node.netns).unwrap();
        assert_eq!(stand.snapshot().unwrap(), before, "{place}");
        stand.daemon.guard_command("on", &stand.node.netns).unwrap();
    }
    println!("{} kill points: {} stuck, {} refused", PLACES.len(), stuck.len(), refused.len());
    assert!(stuck.is_empty() && refused.is_empty(), "stuck: {stuck:#?}\nrefused: {refused:#?}");
}

/// SIGTERM waits in a frozen cgroup; the server must run to save its world.
#[test]
fn a_sleeper_that_is_told_to_stop_is_woken_for_it() {
    let mut stand = Stand::prepare(1, "").unwrap();
    stand.pots[0].server = None;
    let mut command = Command::new(sibling("echo-server").unwrap());
    command.args(["--port", &PORT.to_string(), "--saves"]);
    let place = Place::new(&stand.node.pods[0].netns, &stand.pots[0].cgroup);
    let mut server = Process::spawn("echo-server", command, place).unwrap();
    stand.start_blind().unwrap();
    stand.doze_all().unwrap();
    server.signal(Signal::SIGTERM).unwrap();
    assert!(server.wait(SOON).unwrap().success(), "it ended by itself");
}

/// A daemon that hangs and goes on: what the guard did meanwhile is found and believed.
#[test]
fn stopped_and_continued_it_is_consistent() {
    let stand = asleep(3);
    let process = stand.daemon.process.as_ref().unwrap();
    process.signal(Signal::SIGSTOP).unwrap();
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
