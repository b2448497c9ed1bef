//! Waking from a doze against a server that never sleeps: from the packet that wakes to the first answer, by
//! the door's clock on both sides.
//!
//! Asked = the flow's `last_ns`, written where the door looks at the client's payload; answered = `answer_ns`,
//! written where it sees the server's. The same two lines of the same programs time both sides. For the
//! sleeper `last_ns` is written before the packet is parked; the replay skips that line.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicU16, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use dormouse_daemon::sleep::Woken;
use dormouse_packet::Game;
use dormouse_tests::{clients::retransmissions, servers::echo, topology::Transport};
use nix::time::{ClockId, ClockNanosleepFlags, clock_getres, clock_gettime, clock_nanosleep};

use crate::{
    floor, login,
    report::{Figure, Goal},
    sleepers::{Behind, Sleepers},
    stats::{bootstrap, median, quantile},
};

const PORT: u16 = 7100;
/// Sleepers that doze at the same time; they are woken one after the other.
const SLEEPERS: usize = 8;
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// Between the first and the second datagram (the second one wakes), and between a handshake and its payload.
const GAP: Duration = Duration::from_millis(1);

/// The samples of one round, microseconds at the door.
#[derive(Default)]
pub struct Round {
    /// By transport (TCP, UDP) and side (awake, asleep, rested, floor).
    samples: [[Vec<f64>; 4]; 2],
}

#[derive(Default)]
pub struct Faults {
    failed: u64,
    retransmissions: u64,
}

const TCP: usize = 0;
const UDP: usize = 1;
const AWAKE: usize = 0;
const ASLEEP: usize = 1;
/// Awake as well, but asked no more often than a sleeper: what a player finds at an idle server. The one on the side
/// [`AWAKE`] is asked again and again and is in the CPU's caches.
const RESTED: usize = 2;
/// Frozen, and thawed by a thread that does nothing else ([`floor`]).
pub const FLOOR: usize = 3;
const SIDES: [(usize, &str); 4] =
    [(AWAKE, "awake"), (ASLEEP, "asleep"), (RESTED, "rested"), (FLOOR, "floor")];

/// Measures.
pub fn run(quick: bool) -> Result<Vec<Figure>> {
    let (rounds, wakes) = if quick { (10, 1_000) } else { (20, 10_000) };
    let mut stand = Sleepers::new(2 * SLEEPERS as u8 + 1)?;
    let mut behind = vec![];
    for index in 0..=2 * SLEEPERS {
        behind.push(stand.add(index, PORT, Game::GenericTcp, |place| echo::start(place, PORT))?);
    }
    let (awake, others) = behind.split_last().context("servers")?;
    let (asleep, rested) = others.split_at(SLEEPERS);
    let mut faults = Faults::default();
    let mut phases = vec![];
    let mut measured = vec![];
    let cycles = wakes / rounds / (2 * SLEEPERS);
    for number in 0..rounds {
        let mut round = Round::default();
        for _ in 0..cycles.max(1) {
            // A B B A, and B's twins between.
            always_awake(&stand, awake, &mut round, &mut faults);
            ask_all(&stand, rested, &mut round, &mut faults);
            wake_all(&mut stand, asleep, &mut round, &mut faults, &mut phases)?;
            wake_all(&mut stand, asleep, &mut round, &mut faults, &mut phases)?;
            ask_all(&stand, rested, &mut round, &mut faults);
            floor::ask_all(&stand, asleep, &mut round, &mut faults)?;
            always_awake(&stand, awake, &mut round, &mut faults);
        }
        let middle = |transport: usize, side: usize| median(&round.samples[transport][side]);
        println!(
            "round {number}: p50 µs awake/asleep/rested/floor: TCP {}, UDP {}",
            SIDES.map(|(side, _)| format!("{:.0}", middle(TCP, side))).join("/"),
            SIDES.map(|(side, _)| format!("{:.0}", middle(UDP, side))).join("/"),
        );
        measured.push(round);
    }
    drop(behind);
    drop(stand);
    tell(&measured, &phases);
    let mut figures = vec![
        Figure::count("failed", faults.failed),
        Figure::count("retransmissions", faults.retransmissions),
        Figure::new("tcp_p50_ratio", p50_ratio(&measured, TCP, ASLEEP, AWAKE), Goal::AtMost(2.0)),
        Figure::new(
            "tcp_p99_ratio",
            bootstrap(&measured, |drawn| pooled_p99(drawn, TCP, ASLEEP) / pooled_p99(drawn, TCP, AWAKE)),
            if quick { Goal::Reported } else { Goal::AtMost(5.0) },
        ),
        Figure::new("udp_p50_ratio", p50_ratio(&measured, UDP, ASLEEP, AWAKE), Goal::AtMost(3.0)),
        Figure::new(
            "udp_p99_added_ms",
            bootstrap(&measured, |drawn| {
                (pooled_p99(drawn, UDP, ASLEEP) - pooled_p99(drawn, UDP, AWAKE)) / 1000.0
            }),
            if quick { Goal::Reported } else { Goal::AtMost(2.0) },
        ),
    ];
    for (name, transport) in [("tcp_rested_ratio", TCP), ("udp_rested_ratio", UDP)] {
        figures.push(Figure::new(name, p50_ratio(&measured, transport, ASLEEP, RESTED), Goal::Reported));
    }
    for (name, transport) in [("tcp_floor_ratio", TCP), ("udp_floor_ratio", UDP)] {
        figures.push(Figure::new(name, p50_ratio(&measured, transport, FLOOR, AWAKE), Goal::Reported));
    }
    figures.push(login::run(if quick { 4 } else { 10 })?);
    Ok(figures)
}

/// One side over another.
fn p50_ratio(rounds: &[Round], transport: usize, side: usize, base: usize) -> crate::stats::Estimate {
    bootstrap(rounds, |drawn| {
        let ratios: Vec<f64> = drawn
            .iter()
            .map(|round| median(&round.samples[transport][side]) / median(&round.samples[transport][base]))
            .collect();
        median(&ratios)
    })
}

fn pooled_p99(rounds: &[&Round], transport: usize, side: usize) -> f64 {
    let pooled: Vec<f64> =
        rounds.iter().flat_map(|round| round.samples[transport][side].iter().copied()).collect();
    quantile(&pooled, 0.99)
}

fn tell(rounds: &[Round], phases: &[Woken]) {
    let all: Vec<&Round> = rounds.iter().collect();
    for (transport, name) in [(TCP, "TCP"), (UDP, "UDP")] {
        for (side, word) in SIDES {
            let pooled: Vec<f64> =
                all.iter().flat_map(|round| round.samples[transport][side].iter().copied()).collect();
            println!(
                "{name} {word}: {} samples, µs p50 {:.1} p90 {:.1} p99 {:.1} max {:.1}",
                pooled.len(),
                median(&pooled),
                quantile(&pooled, 0.9),
                quantile(&pooled, 0.99),
                quantile(&pooled, 1.0)
            );
        }
    }
    let phase = |name: &str, of: &dyn Fn(&Woken) -> u64| {
        let micros: Vec<f64> = phases.iter().map(|woken| of(woken) as f64 / 1000.0).collect();
        println!("wake, {name}: µs p50 {:.1} p99 {:.1}", median(&micros), quantile(&micros, 0.99));
    };
    phase("knock → decided", &|w| w.decided_ns.saturating_sub(w.knocked_ns.unwrap_or(w.decided_ns)));
    phase("decided → thawed", &|w| w.thawed_ns - w.decided_ns);
    phase("thawed → replayed, gate open", &|w| w.opened_ns - w.thawed_ns);
}

fn always_awake(stand: &Sleepers, awake: &Behind, round: &mut Round, faults: &mut Faults) {
    for index in 0..SLEEPERS {
        one(stand, awake, index, AWAKE, round, faults, &|| awake.await_answer());
    }
}

/// Each is asked once, as [`wake_all`] asks its sleepers.
fn ask_all(stand: &Sleepers, rested: &[Behind], round: &mut Round, faults: &mut Faults) {
    for (index, server) in rested.iter().enumerate() {
        one(stand, server, index, RESTED, round, faults, &|| server.await_answer());
    }
}

/// All doze, then each is woken.
fn wake_all(
    stand: &mut Sleepers,
    asleep: &[Behind],
    round: &mut Round,
    faults: &mut Faults,
    phases: &mut Vec<Woken>,
) -> Result<()> {
    thread::scope(|scope| {
        let dozing: Vec<_> = asleep.iter().map(|server| scope.spawn(|| server.doze())).collect();
        dozing.into_iter().try_for_each(|one| one.join().expect("dozing returns its errors"))
    })?;
    for (index, server) in asleep.iter().enumerate() {
        ensure!(server.cgroup.is_frozen()?, "{} does not sleep", server.sleeper.name);
        one(stand, server, index, ASLEEP, round, faults, &|| ());
        // The answer may come before the way out has ended.
        drop(server.sleeper.ways());
        ensure!(!server.sleeper.is_asleep(), "{} sleeps on", server.sleeper.name);
    }
    phases.extend(stand.woken().into_iter().map(|(_, woken)| woken));
    Ok(())
}

/// `ready` is called before the packet that counts is sent.
pub fn one(
    stand: &Sleepers,
    server: &Behind,
    index: usize,
    side: usize,
    round: &mut Round,
    faults: &mut Faults,
    ready: &(dyn Fn() + Sync),
) {
    let transport = if index.is_multiple_of(2) { TCP } else { UDP };
    let frozen = side == ASLEEP || side == FLOOR;
    let asked = stand
        .player(|| if transport == TCP { ask_tcp(server, ready) } else { ask_udp(server, frozen, ready) });
    let timed = asked.and_then(|(client, again)| {
        faults.retransmissions += u64::from(again);
        server.at_the_door(if transport == TCP { Transport::Tcp } else { Transport::Udp }, client)
    });
    match timed {
        Ok(took) => round.samples[transport][side].push(took.as_secs_f64() * 1e6),
        Err(error) => {
            println!("failed: {error:#}");
            faults.failed += 1;
        }
    }
}

/// The connection is made first, with the server asleep: its first payload is the question.
fn ask_tcp(server: &Behind, ready: &dyn Fn()) -> Result<(SocketAddr, u32)> {
    let mut stream = TcpStream::connect_timeout(&server.address, TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    thread::sleep(GAP);
    next_tick();
    ready();
    stream.write_all(b"hello")?;
    let len = stream.read(&mut [0; 256])?;
    ensure!(len != 0, "closed without an echo");
    Ok((stream.local_addr()?, retransmissions(&stream)?))
}

/// On a port that was not used in the last minute: the door would still know its player, who wakes by the first
/// datagram.
fn fresh_socket() -> Result<UdpSocket> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let port = 10_000 + NEXT.fetch_add(1, Relaxed) % 20_000;
        match UdpSocket::bind(("0.0.0.0", port)) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            bound => return Ok(bound?),
        }
    }
}

/// The door times a packet of an awake server once in a tick of the kernel: each question is the first of its
/// tick, on both sides. The coarse clock moves with the tick. Sleeps until it does: a client that looks again and
/// again keeps a CPU busy, and that changes where the kernel lets servers run.
fn next_tick() {
    const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC_COARSE;
    let (before, tick) = (clock_gettime(CLOCK), clock_getres(CLOCK));
    if let (Ok(before), Ok(tick)) = (before, tick) {
        let next = before + tick;
        let _ = clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::TIMER_ABSTIME, &next);
    }
    while clock_gettime(CLOCK) == before {
        thread::sleep(Duration::from_micros(100));
    }
}

fn ask_udp(server: &Behind, frozen: bool, ready: &dyn Fn()) -> Result<(SocketAddr, u32)> {
    let socket = fresh_socket()?;
    socket.connect(server.address)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    let mut buffer = [0; 256];
    next_tick();
    let start = Instant::now();
    socket.send(b"first")?;
    if !frozen {
        socket.recv(&mut buffer).context("the first datagram's echo")?;
    }
    thread::sleep(GAP.saturating_sub(start.elapsed()));
    ready();
    socket.send(b"second")?;
    // The first datagram's echo comes now too.
    let echoes = if frozen { 2 } else { 1 };
    for _ in 0..echoes {
        socket.recv(&mut buffer).context("an echo")?;
    }
    Ok((socket.local_addr()?, 0))
}
