//! A node full of sleepers on which nothing happens: what the daemon costs then. And a storm out of that quiet:
//! a hundred players at a hundred of them at the same moment.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use dormouse_tests::{
    daemon::QUICK,
    herd::Herd,
    weight::{Scale, cpu_time},
};

use crate::{
    report::{Figure, Goal},
    stats::{Estimate, quantile},
};

const SERVERS: u16 = 500;
const PLAYERS: usize = 100;
/// What is measured, after what the last dozes left to do.
const QUIET: Duration = Duration::from_mins(1);
const SETTLE: Duration = Duration::from_secs(20);
/// A player who waits longer than this has given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Measures.
pub fn run(quick: bool) -> Result<Vec<Figure>> {
    let scale = Scale::new()?;
    let began = Instant::now();
    let mut herd = Herd::prepare(if quick { 50 } else { SERVERS }, QUICK)?;
    println!("{} servers after {:.0?}", herd.members.len(), began.elapsed());
    let command = scale.put(&herd.daemon.command()?);
    herd.start_and_doze(command, 4)?;
    println!("all asleep after {:.0?}", began.elapsed());
    thread::sleep(if quick { Duration::from_secs(12) } else { SETTLE });

    let pid = herd.daemon.process.as_ref().context("the daemon runs")?.pid();
    let (cpu_then, then) = (cpu_time(pid)?, Instant::now());
    thread::sleep(if quick { QUIET / 6 } else { QUIET });
    let cpu = cpu_time(pid)?.saturating_sub(cpu_then).as_secs_f64() / then.elapsed().as_secs_f64() * 100.0;
    let memory = scale.bytes()? as f64 / f64::from(1 << 20);
    println!("{}", scale.told());

    let players = PLAYERS.min(herd.members.len());
    let addresses: Vec<SocketAddr> = herd.members.iter().map(|member| member.address).collect();
    let spread = addresses.len() / players;
    let answers = herd.node.client.run(|| {
        let ready = Barrier::new(players);
        thread::scope(|scope| {
            let joins: Vec<_> = (0..players)
                .map(|player| {
                    let (to, ready) = (addresses[player * spread], &ready);
                    // The client's namespace is the thread's: these inherit it.
                    scope.spawn(move || {
                        ready.wait();
                        join(to)
                    })
                })
                .collect();
            joins.into_iter().map(|join| join.join().expect("players return")).collect::<Vec<_>>()
        })
    });
    let mut milliseconds = vec![];
    for answer in &answers {
        match answer {
            Ok(took) => milliseconds.push(took.as_secs_f64() * 1e3),
            Err(error) => println!("did not get in: {error:#}"),
        }
    }
    let failed = answers.len() - milliseconds.len();
    println!("storm: {players} players, the slowest {:.1} ms", quantile(&milliseconds, 1.0));
    let exact = Estimate::exact;
    Ok(vec![
        Figure::new("cpu_percent", exact(cpu), Goal::AtMost(1.0)),
        Figure::new("memory_mib", exact(memory), Goal::AtMost(64.0)),
        Figure::count("storm_100_failed", failed as u64),
        Figure::new("storm_p50_ms", exact(quantile(&milliseconds, 0.5)), Goal::Reported),
        Figure::new("storm_p99_ms", exact(quantile(&milliseconds, 0.99)), Goal::Reported),
    ])
}

/// From the SYN to the first answer.
fn join(to: SocketAddr) -> Result<Duration> {
    let began = Instant::now();
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"let me in")?;
    let len = stream.read(&mut [0; 256])?;
    anyhow::ensure!(len > 0, "{to} closed");
    Ok(began.elapsed())
}
