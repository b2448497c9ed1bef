//! What strangers and servers may do out of malice: what it costs is bounded, who is not meant is not harmed, and
//! players get in, at the flooded server too. What happened is counted by its reason.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpStream, UdpSocket},
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use dormouse_api::status::Stage;
use dormouse_tests::{
    clients::{
        self,
        flood::{Flood, What},
    },
    cpus,
    daemon::QUICK,
    herd::Herd,
    process::{Place, Process},
    stand::{PORT, SOON, Stand},
};
use nix::sys::signal::Signal;

/// What the daemon may grow by under a flood, bytes of private memory: its queues and lists are bounded.
const MAY_GROW: u64 = 8 << 20;
/// Its threads: its own, the runtime's, and those of a few orders under way.
const MAY_RUN: u64 = 64;

/// A stand with metrics and everybody asleep.
fn asleep(count: u8, limits: &str) -> Stand {
    let mut stand = Stand::prepare(count, limits).unwrap();
    stand.daemon.serve_metrics().unwrap();
    stand.node.expect_floods().unwrap();
    stand.start().unwrap();
    stand.doze_all().unwrap();
    stand
}

fn pid(stand: &Stand) -> u32 {
    stand.daemon.process.as_ref().unwrap().pid()
}

fn of_status(pid: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// The maps, which are shared, are bounded by themselves.
fn private_memory(pid: u32) -> u64 {
    of_status(pid, "RssAnon:") * 1024
}

/// Floods one server while players come to it and to another, and looks at what the daemon took; the third of
/// them nobody wants, and it sleeps on.
fn players_get_in_under(stand: &Stand, what: What<'_>, packets: u32) {
    let before = private_memory(pid(stand));
    let flooding = AtomicBool::new(true);
    let mut flood = Flood::at(&stand.node, stand.address(0)).unwrap();
    let most_threads = thread::scope(|scope| {
        let flooding = &flooding;
        scope.spawn(move || {
            let mut sent = 0;
            while flooding.load(SeqCst) || sent < packets {
                flood.send(what).unwrap();
                sent += 1;
            }
        });
        for _ in 0..3 {
            for index in 0..2 {
                stand.tcp(index).unwrap();
                stand.udp(index).unwrap();
            }
        }
        let threads = of_status(pid(stand), "Threads:");
        flooding.store(false, SeqCst);
        threads
    });
    let grown = private_memory(pid(stand)).saturating_sub(before);
    assert!(grown < MAY_GROW, "the daemon grew by {} KiB", grown >> 10);
    assert!(most_threads <= MAY_RUN, "{most_threads} threads");
    assert!(stand.frozen().unwrap()[2], "nobody asked for the third\n{}", stand.daemon.log());
}

fn counted(stand: &Stand, metric: &str, server: usize) -> f64 {
    let label = format!("server=\"{}\"", stand.pots[server].name);
    stand.daemon.metric(&stand.node.netns, metric, &label).unwrap()
}

#[test]
fn a_flood_of_syns() {
    let stand = asleep(3, "doze_after = \"1h\"");
    let mut flood = Flood::at(&stand.node, stand.address(0)).unwrap();
    for _ in 0..20_000 {
        flood.send(What::Syn).unwrap();
    }
    assert_eq!(stand.frozen().unwrap(), [true; 3], "no SYN wakes");
    players_get_in_under(&stand, What::Syn, 50_000);
    assert!(counted(&stand, "packets_total", 0) >= 70_000.0);
    assert!(counted(&stand, "packets_total", 1) < 1000.0);
}

/// Each datagram the first of its source. Where they can't be held any more, one may be a player's: the flooded
/// server is woken, and no other.
#[test]
fn a_flood_of_datagrams() {
    let stand = asleep(3, "doze_after = \"1h\"");
    let mut flood = Flood::at(&stand.node, stand.address(0)).unwrap();
    for _ in 0..2000 {
        flood.send(What::Datagram(&[7; 600])).unwrap();
    }
    players_get_in_under(&stand, What::Datagram(&[7; 600]), 50_000);
    let counted = |metric| counted(&stand, metric, 0);
    let seen = counted("knocks_total");
    let (parked, no_room) = (counted("parked_total"), counted("no_room_total"));
    assert!(seen > 0.0 && parked > 0.0, "{seen} seen, {parked} parked, {no_room} without room");
}

/// Payload of connections that do not exist: each might be a player whose start nobody saw. The server's kernel is
/// asked for all of them together, not for each.
#[test]
fn a_flood_of_payload_without_connections() {
    let stand = asleep(3, "doze_after = \"1h\"");
    let mut flood = Flood::at(&stand.node, stand.address(0)).unwrap();
    for _ in 0..2000 {
        flood.send(What::Data(&[7; 64])).unwrap();
    }
    players_get_in_under(&stand, What::Data(&[7; 64]), 50_000);
    assert!(counted(&stand, "knocks_total", 0) > 0.0);
}

/// As many addresses as a client has, many ports each, and one who never stops.
#[test]
fn knocks_without_end() {
    let stand = asleep(3, "");
    let before = private_memory(pid(&stand));
    let flooding = AtomicBool::new(true);
    thread::scope(|scope| {
        let (stand, flooding) = (&stand, &flooding);
        scope.spawn(move || {
            stand.node.client.run(|| {
                for source in 0..200u32 {
                    for _ in 0..25 {
                        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                        for _ in 0..10 {
                            let _ = socket.send_to(&source.to_ne_bytes(), stand.address(0));
                        }
                    }
                }
            });
        });
        scope.spawn(move || {
            stand.node.client.run(|| {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                while flooding.load(SeqCst) {
                    let _ = socket.send_to(&[0; 1200], stand.address(1));
                    let _ = TcpStream::connect_timeout(&stand.address(1), Duration::from_millis(100));
                }
            });
        });
        for _ in 0..5 {
            for index in 0..3 {
                stand.tcp(index).unwrap();
                stand.udp(index).unwrap();
            }
        }
        flooding.store(false, SeqCst);
    });
    let grown = private_memory(pid(&stand)).saturating_sub(before);
    assert!(grown < MAY_GROW, "the daemon grew by {} KiB", grown >> 10);
    stand
        .wait_until("all is as ever", || {
            stand.doze_all()?;
            ensure!(stand.tcp(2)?.retransmissions == 0);
            Ok(())
        })
        .unwrap();
}

/// The door remembers 65,536 conversations. More strangers than that make it forget who plays, if they come twice
/// (who comes once takes the room of others who came once); the connection's own kernel knows, and nobody is
/// frozen in the middle of his game.
///
/// What a CPU adds to the map stays on that CPU's own list until it wants room again (kernel/bpf/bpf_lru_list.c;
/// seen on 6.18), so the strangers come on each of them.
#[test]
fn a_full_map_of_flows_hides_no_player() {
    const DOZE_AFTER: Duration = Duration::from_secs(15);
    let stand = asleep(2, "doze_after = \"15s\"");
    let to = stand.address(0);
    let mut player = stand.node.client.run(|| TcpStream::connect(to)).unwrap();
    player.set_nodelay(true).unwrap();
    player.set_read_timeout(Some(SOON)).unwrap();
    // More than what is looked at to tell who somebody is.
    let mut say = || {
        player.write_all(&[b'x'; 200]).unwrap();
        assert_ne!(player.read(&mut [0; 4096]).unwrap(), 0);
        thread::sleep(Duration::from_millis(50));
    };
    for _ in 0..5 {
        say();
    }
    let name = &stand.pots[0].name;
    let woken = stand.daemon.wait_for(name, Stage::Awake, SOON).unwrap();
    assert_eq!(woken.flows, 1);
    let mut flood = Flood::at(&stand.node, stand.address(1)).unwrap();
    // The map forgets about whom it heard least of late: after so many of others it has mostly forgotten him.
    let cpus = cpus::allowed().unwrap();
    let flows = || stand.daemon.server(name).unwrap().flows;
    let forgotten = (0..12).any(|_| {
        for &cpu in &cpus {
            let twice_each = || {
                for _ in 0..65_536 {
                    flood.send(What::Syn)?;
                    flood.repeat()?;
                }
                Ok(())
            };
            cpus::on(cpu, twice_each).unwrap();
        }
        flows() == 0
    });
    assert!(forgotten, "the door still knows him");
    say();
    assert_eq!(flows(), 0, "bytes in the middle of a stream tell nobody's class");
    let until = Instant::now() + DOZE_AFTER + Duration::from_secs(8);
    while Instant::now() < until {
        say();
        assert!(!stand.pots[0].cgroup.is_frozen().unwrap(), "frozen under a player\n{}", stand.daemon.log());
    }
    let now = stand.daemon.server(name).unwrap();
    assert_eq!((now.stage, now.since_at_ms), (Stage::Awake, woken.since_at_ms), "{}", stand.daemon.log());
    let aborted = stand.daemon.metric(&stand.node.netns, "doze_aborted_total", "unknown-flow").unwrap();
    assert!(aborted >= 1.0, "counted by its reason");
    drop(player);
    // Who has left keeps nobody awake: after a doze that was called off the next one comes a minute later.
    stand.daemon.wait_for(name, Stage::Dozing, DOZE_AFTER + Duration::from_mins(3)).unwrap();
}

/// Every server's share of the ring is taken while the daemon can't read: TCP players pass all the same, and their
/// flags are seen when it can.
#[test]
fn a_full_ring() {
    const SERVERS: u16 = 72;
    let mut herd = Herd::prepare(SERVERS, QUICK).unwrap();
    // Longer than the daemon is held: this is a slow daemon, not a dead one.
    herd.daemon.configure("stale_after = \"30s\"").unwrap();
    herd.daemon.serve_metrics().unwrap();
    herd.node.expect_floods().unwrap();
    let command = herd.daemon.command().unwrap();
    herd.start_and_doze(command, 2).unwrap();
    let daemon = herd.daemon.process.as_ref().unwrap();
    daemon.signal(Signal::SIGSTOP).unwrap();
    for member in &herd.members {
        let mut flood = Flood::at(&herd.node, member.address).unwrap();
        for _ in 0..200 {
            flood.send(What::Datagram(&[7; 1200])).unwrap();
        }
    }
    let players = [0, 35, 71];
    thread::scope(|scope| {
        let herd = &herd;
        let joins: Vec<_> =
            players.into_iter().map(|index| scope.spawn(move || herd.tcp(index).unwrap())).collect();
        thread::sleep(Duration::from_millis(300));
        daemon.signal(Signal::SIGCONT).unwrap();
        for join in joins {
            join.join().unwrap();
        }
    });
    let no_room = herd.daemon.metric(&herd.node.netns, "no_room_total", "").unwrap();
    // 16 MiB hold 7,900 of these records; a server's share is 124.
    assert!(no_room >= f64::from(200 - 124) * f64::from(SERVERS), "{no_room} without room");
    for index in 0..herd.members.len() {
        herd.tcp(index).unwrap();
    }
}

/// A process that never stops to fork, and one that comes into the frozen cgroup from outside: both are frozen with
/// the rest, and let go with it.
#[test]
fn a_server_that_forks_while_it_is_frozen() {
    let stand = Stand::prepare(2, "").map(|mut stand| stand.start().map(|()| stand)).unwrap().unwrap();
    let place = Place::new(&stand.node.pods[0].netns, &stand.pots[0].cgroup);
    let mut forks = Command::new("sh");
    forks.args(["-c", "while :; do sleep 0.001 & sleep 0.001 & wait; done"]);
    let _forks = Process::spawn("forks", forks, place).unwrap();
    for _ in 0..5 {
        stand.doze(0).unwrap();
        let mut late = Command::new("sleep");
        late.arg("30");
        // The one that comes freezes before its exec, which `spawn` would wait for.
        let pids = stand.pots[0].cgroup.pids().unwrap();
        let mut late = late.spawn().unwrap();
        fs::write(stand.pots[0].cgroup.path().join("cgroup.procs"), late.id().to_string()).unwrap();
        stand
            .wait_until("the one that came is frozen too", || {
                ensure!(stand.pots[0].cgroup.is_frozen()?, "{pids:?}");
                Ok(())
            })
            .unwrap();
        stand.tcp(1).unwrap();
        stand.tcp(0).unwrap();
        assert!(!stand.pots[0].cgroup.is_frozen().unwrap());
        late.kill().unwrap();
        late.wait().unwrap();
    }
}

/// A pod may do in its own namespace what it wants: its own players suffer, until it is whole again, and nobody
/// else. It is never left frozen for it.
#[test]
fn a_pod_that_takes_itself_apart() {
    let stand = asleep(2, "");
    let inside = |command: &str| stand.node.pods[0].netns.ip(command).unwrap();
    let others = || {
        stand.tcp(1).unwrap();
        stand.udp(1).unwrap();
    };
    // Nothing reaches it, and it sleeps on: by its own will.
    inside("addr flush dev eth0");
    others();
    let address = stand.node.pods[0].v4;
    inside(&format!("addr add {address}/24 dev eth0"));
    inside("route replace default via 10.42.0.1");
    stand.tcp(0).unwrap();

    stand.doze(0).unwrap();
    inside("link set eth0 down");
    others();
    inside("link set eth0 up");
    inside("route replace default via 10.42.0.1");
    stand.tcp(0).unwrap();

    // Its listener's connections closed from inside, as root in the pod may (ss -K).
    stand.doze(0).unwrap();
    let to = stand.address(0);
    let early = stand.node.client.run(|| TcpStream::connect(to)).unwrap();
    stand.node.pods[0].netns.run(|| {
        let _ = Command::new("ss").args(["-K", "sport", "=", &format!(":{PORT}")]).output();
    });
    drop(early);
    others();
    stand.tcp(0).unwrap();

    // The veth is gone, and with it the door.
    stand.doze(0).unwrap();
    inside("link del eth0");
    others();
    stand
        .wait_until("it runs, since nobody could wake it", || {
            ensure!(!stand.pots[0].cgroup.is_frozen()?);
            Ok(())
        })
        .unwrap();
    assert!(!Path::new(&format!("/sys/class/net/{}", stand.node.pods[0].host_veth)).exists());
    stand.node.rewire(0).unwrap();
    stand
        .wait_until("it is watched again", || {
            stand.doze(0)?;
            ensure!(stand.tcp(0)?.reply.ends_with(b"let me in"));
            Ok(())
        })
        .unwrap();
    others();
    let echo = stand.node.client.run(|| clients::echo::tcp(to, b"and again", SOON)).unwrap();
    assert!(echo.reply.ends_with(b"and again"));
}
