//! A login between any two steps of falling asleep and of waking.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    thread,
    time::Duration,
};

use dormouse_tests::{
    clients,
    stand::{SOON, Stand},
};

/// `scripts/test long` sets it to 1,000.
fn rounds() -> u32 {
    std::env::var("DORMOUSE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(200)
}

/// Scattered offsets, the same in every run (Knuth's multiplicative hash).
fn scattered(round: u32, below_us: u32) -> Duration {
    Duration::from_micros(u64::from(round.wrapping_mul(2_654_435_761) >> 8) % u64::from(below_us))
}

/// Asks by TCP on a connection that stands; anything but one prompt answer is told.
fn tcp(stream: &mut TcpStream, message: &[u8]) -> Result<(), String> {
    stream.write_all(message).map_err(|error| format!("write: {error}"))?;
    let mut buffer = [0; 256];
    let len = stream.read(&mut buffer).map_err(|error| format!("tcp: {error}"))?;
    if buffer[..len].ends_with(message) { Ok(()) } else { Err(format!("tcp: {:?}", &buffer[..len])) }
}

/// Two datagrams a millisecond apart; both must be answered, in order.
fn udp(to: SocketAddr) -> Result<(), String> {
    let told = |error: std::io::Error| format!("udp: {error}");
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(told)?;
    socket.connect(to).map_err(told)?;
    socket.set_read_timeout(Some(SOON)).map_err(told)?;
    socket.send(b"first").map_err(told)?;
    thread::sleep(Duration::from_millis(1));
    socket.send(b"second").map_err(told)?;
    let mut buffer = [0; 256];
    for word in ["first", "second"] {
        let len = socket.recv(&mut buffer).map_err(|error| format!("udp: {word}: {error}"))?;
        if !String::from_utf8_lossy(&buffer[..len]).ends_with(word) {
            return Err(format!("udp: {:?} instead of {word}", String::from_utf8_lossy(&buffer[..len])));
        }
    }
    Ok(())
}

/// Players come around the moment in which the server dozes, by three ways in turn: a new connection, a connection
/// that was made before and says its first word now, two datagrams.
#[test]
fn a_login_between_any_two_steps_gets_in() {
    let mut stand = Stand::prepare(2, "").unwrap();
    stand.start().unwrap();
    let (lost, late) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        for index in 0..2 {
            let (stand, lost, late) = (&stand, &lost, &late);
            scope.spawn(move || {
                let to = stand.address(index);
                for round in 0..rounds() / 2 {
                    let early = stand.node.client.run(|| TcpStream::connect(to)).unwrap();
                    early.set_read_timeout(Some(SOON)).unwrap();
                    early.set_nodelay(true).unwrap();
                    let going = AtomicBool::new(true);
                    let outcome = thread::scope(|scope| {
                        // Asked until it agrees: a player of the round before may still count.
                        scope.spawn(|| {
                            while going.load(SeqCst)
                                && stand.daemon.sleep_once(&stand.pots[index].name, false).is_err()
                            {
                                thread::sleep(Duration::from_millis(20));
                            }
                        });
                        // Until the freeze or a little before it, by the cgroup's own word.
                        let until = std::time::Instant::now() + SOON;
                        while !frozen_or_about(stand, index) && std::time::Instant::now() < until {
                            thread::yield_now();
                        }
                        thread::sleep(scattered(round, 4000));
                        let outcome = stand.node.client.run(|| match round % 3 {
                            0 => clients::echo::tcp(to, b"hello", SOON)
                                .map(|answer| {
                                    late.fetch_add(answer.retransmissions, SeqCst);
                                })
                                .map_err(|error| format!("{error:#}")),
                            1 => tcp(&mut early.try_clone().unwrap(), b"early"),
                            _ => udp(to),
                        });
                        going.store(false, SeqCst);
                        outcome
                    });
                    if let Err(error) = outcome {
                        eprintln!("round {round} at {index}: {error}");
                        lost.fetch_add(1, SeqCst);
                    }
                }
            });
        }
    });
    assert_eq!((lost.load(SeqCst), late.load(SeqCst)), (0, 0), "lost, sent again\n{}", stand.daemon.log());
}

/// True from the moment in which `cgroup.freeze` is written: the freeze itself, the second look and the gate follow.
fn frozen_or_about(stand: &Stand, index: usize) -> bool {
    std::fs::read_to_string(stand.pots[index].cgroup.path().join("cgroup.freeze"))
        .is_ok_and(|set| set == "1\n")
}

/// Players who never stop coming while the server falls asleep by time and is woken: connections one after another
/// with pauses around `doze_after`.
#[test]
fn players_around_the_time_of_the_doze_get_in() {
    let mut stand = Stand::prepare(4, "").unwrap();
    stand.start().unwrap();
    let lost = AtomicU32::new(0);
    thread::scope(|scope| {
        for index in 0..4 {
            let (stand, lost) = (&stand, &lost);
            scope.spawn(move || {
                let to = stand.address(index);
                for round in 0..rounds() / 20 {
                    thread::sleep(Duration::from_millis(980) + scattered(round + 100 * index as u32, 60_000));
                    let outcome = stand.node.client.run(|| match round % 2 {
                        0 => clients::echo::tcp(to, b"hello", SOON)
                            .map(drop)
                            .map_err(|error| format!("{error:#}")),
                        _ => udp(to),
                    });
                    if let Err(error) = outcome {
                        eprintln!("round {round} at {index}: {error}");
                        lost.fetch_add(1, SeqCst);
                    }
                }
            });
        }
    });
    assert_eq!(lost.load(SeqCst), 0, "{}", stand.daemon.log());
}
