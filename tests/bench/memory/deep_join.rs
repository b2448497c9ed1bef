//! Players from deep: a JVM with a GiB of heap, Minecraft and Luanti, by the real daemon.

use std::{net::SocketAddr, thread, time::Duration};

use anyhow::{Context, Result};
use dormouse_api::status::Stage;
use dormouse_tests::{
    clients,
    process::Place,
    servers::{java, luanti, minecraft},
    swap::Swap,
    topology::Transport,
};

use super::node::{Deep, Wanted};
use crate::{
    report::{Figure, Goal},
    stats::{Estimate, median, median_of_rounds},
};

const HEAP_MIB: u32 = 1024;
const TIMEOUT: Duration = Duration::from_secs(30);
/// The JVM's first sleep: long enough for its timers to have missed many ticks.
const FIRST_SLEEP: Duration = Duration::from_mins(10);
const JVM: usize = 0;
const MINECRAFT: usize = 1;
const LUANTI: usize = 2;
const NAMES: [&str; 3] = ["bench/jvm", "bench/minecraft", "bench/luanti"];

/// The first answers at the door and the joins of one server, ms.
#[derive(Default)]
struct Seen {
    answers: Vec<f64>,
    ratios: Vec<f64>,
    /// Of joins from the doze, with all memory in place, by joins awake.
    floors: Vec<f64>,
    awake: Vec<f64>,
    asleep: Vec<f64>,
}

pub fn run(quick: bool) -> Result<Vec<Figure>> {
    let rounds = if quick { 3 } else { 10 };
    let _swap = Swap::measurable(4096)?;
    let stand = Deep::new(&[
        Wanted {
            name: NAMES[JVM],
            profile: "generic-tcp",
            transport: Transport::Tcp,
            port: 7001,
            // It answers whoever speaks.
            limits: "first_speaker = \"client\"\n",
            start: &|place, port| java::heap(place, port, HEAP_MIB, java::Objects::Large),
        },
        Wanted {
            name: NAMES[MINECRAFT],
            profile: "minecraft-java",
            transport: Transport::Tcp,
            port: 25565,
            limits: "",
            start: &minecraft::start,
        },
        Wanted {
            name: NAMES[LUANTI],
            profile: "luanti",
            transport: Transport::Udp,
            port: 30000,
            limits: "",
            start: &luanti::start,
        },
    ])?;
    let mut seen = <[Seen; 3]>::default();
    let mut failed = 0;
    // The first joins compile the servers' programs, and the first wake from deep is the one that learns.
    for which in 0..NAMES.len() {
        join(&stand, which, "first")?;
    }
    stand.sleep()?;
    if !quick {
        thread::sleep(FIRST_SLEEP);
    }
    for (which, name) in NAMES.iter().enumerate() {
        join(&stand, which, "second")?;
        let answer = answer_ms(&stand, which)?;
        println!("{name}: first answer of the first wake, without a record: {answer:.1} ms");
    }
    Deep::rest();
    for round in 0..rounds {
        let mut awake = [0.0; 3];
        for (which, took) in awake.iter_mut().enumerate() {
            *took = join(&stand, which, &format!("a{round}")).map_or(f64::NAN, |join| join);
        }
        stand.sleep()?;
        for which in 0..NAMES.len() {
            match join(&stand, which, &format!("d{round}")) {
                Ok(asleep) => {
                    let answer = answer_ms(&stand, which)?;
                    println!(
                        "round {round} {}: first answer {answer:.1}, join {asleep:.1}, awake {:.1} ms",
                        NAMES[which], awake[which]
                    );
                    seen[which].answers.push(answer);
                    seen[which].awake.push(awake[which]);
                    seen[which].asleep.push(asleep);
                }
                Err(error) => {
                    println!("round {round} {}: {error:#}", NAMES[which]);
                    failed += 1;
                }
            }
        }
        Deep::rest();
        let mut dozing = [f64::NAN; 3];
        stand.doze()?;
        for (which, took) in dozing.iter_mut().enumerate() {
            *took = join(&stand, which, &format!("z{round}")).unwrap_or(f64::NAN);
        }
        Deep::rest();
        for (which, one) in seen.iter_mut().enumerate() {
            // A B A: awake before and after.
            let after = join(&stand, which, &format!("b{round}")).unwrap_or(f64::NAN);
            if let Some(asleep) = one.asleep.last() {
                one.ratios.push(asleep / f64::midpoint(awake[which], after));
                one.floors.push(dozing[which] / f64::midpoint(awake[which], after));
            }
        }
    }
    for (name, one) in NAMES.iter().zip(&seen) {
        println!(
            "{name}: medians, ms: first answer {:.1}, join {:.1}, awake {:.1}",
            median(&one.answers),
            median(&one.asleep),
            median(&one.awake)
        );
    }
    let worst = |of: &dyn Fn(&Seen) -> Estimate, among: &[Seen]| {
        among.iter().map(of).max_by(|a, b| a.value.total_cmp(&b.value)).unwrap_or(Estimate::exact(f64::NAN))
    };
    let first = worst(&|one| median_of_rounds(&one.answers), &seen);
    // The JVM has no join: one line there, one back.
    let joins = worst(&|one| median_of_rounds(&one.ratios), &seen[MINECRAFT..]);
    let floor = worst(&|one| median_of_rounds(&one.floors), &seen[MINECRAFT..]);
    println!("restore by CRIU: left out; Debian 12 ships 3.17, which fails on Linux 6.18");
    Ok(vec![
        Figure::new("first_answer_ms", first, Goal::AtMost(50.0)),
        Figure::new("join_ratio", joins, Goal::AtMost(1.25)),
        Figure::count("failed", failed),
        Figure::new("join_floor_ratio", floor, Goal::Reported),
    ])
}

/// How long a player waits until it is in the game, ms.
fn join(stand: &Deep, which: usize, player: &str) -> Result<f64> {
    let (_, to, _) = stand.servers[which];
    let took = match which {
        JVM => stand.node.client.run(|| ping(to))?,
        MINECRAFT => {
            let place = Place::netns(&stand.node.client);
            clients::node::minecraft_join(place, to, player, Duration::from_millis(200))?.joined
        }
        _ => stand.node.client.run(|| clients::luanti::join(to, player, TIMEOUT))?.joined,
    };
    Ok(took.as_secs_f64() * 1e3)
}

fn ping(to: SocketAddr) -> Result<Duration> {
    Ok(clients::line::ask(to, "ping", TIMEOUT)?.first_reply)
}

/// From the knock to the first answer, both at the door.
fn answer_ms(stand: &Deep, which: usize) -> Result<f64> {
    let wake = stand.last_wake(NAMES[which])?;
    anyhow::ensure!(wake.from_stage == Stage::Deep, "{} was not deep: {wake:?}", NAMES[which]);
    Ok(wake.phases.first_answer_ns.context("no answer seen")? as f64 / 1e6)
}
