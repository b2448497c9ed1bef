//! Twenty players at twenty deep servers at the same moment: how long the mean of them waits, against a schedule that
//! reads one working set after the other at the device's own speed, the shortest first.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use dormouse_api::status::Stage;
use dormouse_daemon::memory::{
    pagemap::{Pagemap, State},
    ranges::{Span, total},
};
use dormouse_tests::{clients, process::Place, servers::memory, swap::Swap, topology::Transport};

use super::{
    disk::{self, Piece, Way},
    node::{DEEP_WITHIN, Deep, SETTLE, Wanted},
    sleeper::{numbers, on_device},
};
use crate::{
    report::{Figure, Goal},
    stats::{bootstrap, median, median_of_rounds},
};

const SERVERS: u16 = 20;
const FIRST_PORT: u16 = 7100;
/// The smallest holds this much, each next one `STEP_MIB` more; a fifth of it is needed for an answer.
const SMALLEST_MIB: u32 = 32;
const STEP_MIB: u32 = 8;
/// Without memory.reclaim only half of it can be used.
const SWAP_MIB: u64 = 5120;
/// Requests under way at the device, as in `swap-in` for runs.
const DEPTH: usize = 32;
/// A player who waits longer than this has given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server and the pages that it touches before it answers.
struct Member {
    address: SocketAddr,
    pid: i32,
    pages: Vec<Span>,
}

/// One storm: seconds, each sorted.
struct Round {
    answers: Vec<f64>,
    ideal: Vec<f64>,
}

impl Round {
    fn first_answer_ratio(&self) -> f64 {
        mean(&self.answers) / mean(&self.ideal)
    }

    fn last_answer_ratio(&self) -> f64 {
        self.answers.last().unwrap_or(&f64::NAN) / self.ideal.last().unwrap_or(&f64::NAN)
    }
}

pub fn run(quick: bool) -> Result<Vec<Figure>> {
    let rounds = if quick { 3 } else { 10 };
    let swap = Swap::measurable(SWAP_MIB)?;
    let names: Vec<String> = (0..SERVERS).map(|number| format!("bench/storm-{number}")).collect();
    let starts: Vec<_> = (0..u32::from(SERVERS))
        .map(|number| {
            move |place: Place<'_>, port| {
                memory::start(place, port, SMALLEST_MIB + STEP_MIB * number, u64::from(number) + 1)
            }
        })
        .collect();
    let wanted: Vec<Wanted<'_>> = (0..SERVERS)
        .zip(names.iter().zip(&starts))
        .map(|(number, (name, start))| Wanted {
            name,
            profile: "generic-tcp",
            transport: Transport::Tcp,
            port: FIRST_PORT + number,
            // An order to sleep waits for as long after a player.
            limits: "first_speaker = \"client\"\ndoze_after = \"7s\"\n",
            start,
        })
        .collect();
    let stand = Deep::new(&wanted)?;
    let mut failed = 0;

    // The first wake learns: what is there afterwards is what was touched.
    sleep(&stand)?;
    for (_, address, _) in &stand.servers {
        ask(&stand, *address, "go")?;
    }
    Deep::rest();
    let members = stand
        .servers
        .iter()
        .map(|(_, address, server)| {
            let pid = server.process.pid().cast_signed();
            let place = numbers(&ask(&stand, *address, "place")?)?;
            let memory = Span::new(place[0], place[0] + place[1]);
            let pages = Pagemap::open(pid)?.pages(State::Present, &[memory])?;
            Ok(Member { address: *address, pid, pages })
        })
        .collect::<Result<Vec<_>>>()?;

    let mut seen = vec![];
    for number in 0..rounds {
        for member in &members {
            ask(&stand, member.address, "dirty")?;
        }
        sleep(&stand)?;
        let ideal = ideal(&members, swap.device())?;
        let mut answers = vec![];
        for outcome in storm(&stand, &members) {
            match outcome {
                Ok(took) => answers.push(took.as_secs_f64()),
                Err(error) => {
                    println!("round {number}: did not get in: {error:#}");
                    failed += 1;
                }
            }
        }
        answers.sort_unstable_by(f64::total_cmp);
        let round = Round { answers, ideal };
        println!(
            "round {number}: first answers, ms: mean {:.0}, shortest {:.1}, longest {:.0}; ideal {:.0}, {:.1}, {:.0}",
            mean(&round.answers) * 1e3,
            round.answers.first().unwrap_or(&f64::NAN) * 1e3,
            round.answers.last().unwrap_or(&f64::NAN) * 1e3,
            mean(&round.ideal) * 1e3,
            round.ideal[0] * 1e3,
            round.ideal.last().unwrap_or(&f64::NAN) * 1e3,
        );
        seen.push(round);
        Deep::rest();
    }
    let ratio =
        bootstrap(&seen, |drawn| median(&drawn.iter().map(|r| r.first_answer_ratio()).collect::<Vec<_>>()));
    let last: Vec<f64> = seen.iter().map(Round::last_answer_ratio).collect();
    Ok(vec![
        Figure::new("first_answer_ratio", ratio, Goal::AtMost(1.2)),
        Figure::new("last_answer_ratio", median_of_rounds(&last), Goal::Reported),
        Figure::count("failed", failed),
    ])
}

/// All of them together: what each has to wait for passes meanwhile.
fn sleep(stand: &Deep) -> Result<()> {
    thread::sleep(SETTLE);
    thread::scope(|scope| {
        let orders: Vec<_> =
            stand.servers.iter().map(|(name, ..)| scope.spawn(|| stand.daemon.sleep(name, true))).collect();
        orders.into_iter().try_for_each(|order| order.join().expect("orders return"))
    })?;
    for (name, ..) in &stand.servers {
        stand.daemon.wait_for(name, Stage::Deep, DEEP_WITHIN)?;
    }
    thread::sleep(SETTLE);
    Ok(())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn ask(stand: &Deep, to: SocketAddr, line: &str) -> Result<String> {
    let answer = stand.node.client.run(|| clients::line::ask(to, line, PATIENCE))?;
    Ok(String::from_utf8(answer.reply)?)
}

/// When each would end at best, seconds: the shortest first, one after the other, at the rate at which the device gives
/// all these places just now, past the page cache.
fn ideal(members: &[Member], device: &std::path::Path) -> Result<Vec<f64>> {
    let mut sets: Vec<(u64, Vec<Piece>)> = vec![];
    for member in members {
        sets.push((total(&member.pages), on_device(member.pid, &member.pages)?));
    }
    sets.sort_unstable_by_key(|(bytes, _)| *bytes);
    let places: Vec<Piece> = sets.iter().flat_map(|(_, places)| places).copied().collect();
    let took = disk::transfer(device, Way::Read, &places, DEPTH)?;
    let bytes: u64 = sets.iter().map(|(bytes, _)| bytes).sum();
    println!("{} MiB, read in {} ms", bytes >> 20, took.as_millis());
    let rate = bytes as f64 / took.as_secs_f64();
    let mut before = 0;
    Ok(sets
        .iter()
        .map(|(bytes, _)| {
            before += bytes;
            before as f64 / rate
        })
        .collect())
}

/// All knock at once; from each one's first byte to the first byte back.
fn storm(stand: &Deep, members: &[Member]) -> Vec<Result<Duration>> {
    let ready = Barrier::new(members.len());
    stand.node.client.run(|| {
        thread::scope(|scope| {
            let knocks: Vec<_> = members
                .iter()
                .map(|member| {
                    let ready = &ready;
                    // The client's namespace is the thread's: these inherit it.
                    scope.spawn(move || {
                        let stream = TcpStream::connect_timeout(&member.address, PATIENCE);
                        ready.wait();
                        let mut stream = stream?;
                        stream.set_nodelay(true)?;
                        stream.set_read_timeout(Some(PATIENCE))?;
                        let knocked = Instant::now();
                        stream.write_all(b"go\n")?;
                        let mut line = String::new();
                        BufReader::new(&stream).read_line(&mut line)?;
                        let took = knocked.elapsed();
                        numbers(line.trim())
                            .with_context(|| format!("{} answered {line:?}", member.address))?;
                        Ok(took)
                    })
                })
                .collect();
            knocks.into_iter().map(|knock| knock.join().expect("players return")).collect()
        })
    })
}
