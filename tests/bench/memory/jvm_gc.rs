//! A collector walks the whole live heap: its pause ten seconds after a deep wake, with the rest of the heap brought
//! back in the background and without.

use std::{net::SocketAddr, thread, time::Duration};

use anyhow::{Context, Result};
use dormouse_tests::{clients, servers::java, swap::Swap, topology::Transport};

use super::{
    disk::{self, Way},
    node::{Deep, Wanted},
};
use crate::{
    report::{Figure, Goal},
    stats::{median, median_of_rounds},
};

const NAME: &str = "bench/jvm";
const LIVE_MIB: u32 = 3072;
const SWAP_MIB: u64 = 10_240;
const AFTER_THE_WAKE: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_mins(3);
const DEPTH: usize = 8;

pub fn run(quick: bool) -> Result<Vec<Figure>> {
    let swap = Swap::measurable(SWAP_MIB)?;
    let (mut ratios, mut without, mut awake) = (vec![], vec![], vec![]);
    let mut timed_out = 0;
    for (how, rounds) in [("all", if quick { 1 } else { 3 }), ("beside", 1)] {
        let stand = Deep::new(&[Wanted {
            name: NAME,
            profile: "generic-tcp",
            transport: Transport::Tcp,
            port: 7001,
            limits: &format!("first_speaker = \"client\"\nbring_back = \"{how}\"\n"),
            start: &|place, port| java::heap(place, port, LIVE_MIB, java::Objects::Small),
        }])?;
        let (_, to, _) = stand.servers[0];
        let ask = |line: &str| stand.node.client.run(|| pause_ms(to, line));
        for round in 0..rounds {
            awake.push(ask("gc")?);
            stand.sleep()?;
            let device = device_ms(swap.device())?;
            ask("ping")?;
            thread::sleep(AFTER_THE_WAKE);
            match ask("gc") {
                Ok(pause) => {
                    println!("{how} {round}: pause {pause:.0} ms, device {device:.0} ms for the live heap");
                    if how == "all" { &mut ratios } else { &mut without }.push(pause / device);
                }
                Err(error) => {
                    println!("{how} {round}: {error:#}");
                    timed_out += 1;
                }
            }
        }
    }
    println!("pause awake, ms: {:.0}", median(&awake));
    Ok(vec![
        Figure::new("pause_ratio", median_of_rounds(&ratios), Goal::AtMost(2.0)),
        Figure::new("pause_ratio_without", median_of_rounds(&without), Goal::Reported),
        Figure::count("timed_out", timed_out),
    ])
}

/// How long the server worked on it, as it says itself (`ms=`).
fn pause_ms(to: SocketAddr, line: &str) -> Result<f64> {
    let answer = clients::line::ask(to, line, TIMEOUT)?;
    let text = String::from_utf8_lossy(&answer.reply).into_owned();
    let ms = text.split(' ').find_map(|word| word.strip_prefix("ms="));
    ms.and_then(|ms| ms.parse().ok()).with_context(|| format!("no time in {text:?}"))
}

/// What the device needs to read as much as lives, ms.
fn device_ms(swap: &std::path::Path) -> Result<f64> {
    let bytes = u64::from(LIVE_MIB) << 20;
    Ok(disk::transfer(swap, Way::Read, &[(1 << 20, bytes)], DEPTH)?.as_secs_f64() * 1e3)
}
