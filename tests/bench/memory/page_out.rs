//! How fast memory goes out, against what the device takes, and what an awake neighbour notices of it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dormouse_tests::{cgroup::Cgroup, owner, process::Place, servers::echo, swap::Swap};

use super::disk::{self, Way};
use super::sleeper::Sleeper;
use crate::report::{Figure, Goal};
use crate::stats::{median_of_rounds, quantile};

const MIB: u64 = 1024;
/// A faster device is not asked for more.
const FAST_ENOUGH: f64 = (1u64 << 30) as f64;
const DEPTH: usize = 8;
const PORT: u16 = 7300;
/// Questions to the neighbour, one in this time: as a game's packets come.
const ASK_EVERY: Duration = Duration::from_millis(2);

pub fn run(quick: bool) -> Result<Vec<Figure>> {
    let rounds = if quick { 3 } else { 10 };
    let swap = Swap::measurable(4096)?;
    let scratch = owner::temp_dir("scratch")?;
    let folder = swap.device().parent().context("the swap's folder")?;
    let file = if folder.starts_with("/dev") { scratch.path().join("write") } else { folder.join("write") };
    disk::make(&file, MIB << 20)?;
    let mut sleeper = Sleeper::new(&["--mib", &MIB.to_string()])?;
    let cgroup = Cgroup::create("neighbour")?;
    let neighbour = echo::start(Place { netns: None, cgroup: Some(&cgroup) }, PORT)?;
    let (mut device, mut again, mut p99, mut floor) = (vec![], vec![], vec![], vec![]);
    for number in 0..rounds {
        let write = || rate(&file);
        // A B B A: alone, beside two page-outs, alone.
        let quiet_before = ask_for(Duration::from_secs(2))?;
        let mut rates = vec![];
        let mut beside = vec![];
        let mut beside_writes = vec![];
        for _ in 0..2 {
            sleeper.ask("dirty")?;
            sleeper.cgroup.freeze(true)?;
            let (before, asked) = beside_asking(write)?;
            beside_writes.extend(asked);
            let (out, asked) = beside_asking(|| sleeper.page_out())?;
            let after = write()?;
            // Of a page that another CPU has just put on its own list of new ones the kernel lets nobody take hold.
            ensure!(out.stopped.is_none() && out.paged_out >= (MIB << 20) * 999 / 1000, "{out:?}");
            beside.extend(asked);
            let rate = out.paged_out as f64 / out.took.as_secs_f64();
            rates.push(rate / f64::midpoint(before, after).min(FAST_ENOUGH));
            sleeper.cgroup.freeze(false)?;
            ensure!(sleeper.ask("check")?.starts_with("0 "), "pages are not what was written");
            // Only read: everything goes out again without a write.
            let written = pages_written()?;
            sleeper.sleep()?;
            again.push((pages_written()? - written) as f64 * 4096.0 / (MIB << 20) as f64);
            sleeper.cgroup.freeze(false)?;
        }
        let quiet_after = ask_for(Duration::from_secs(2))?;
        let alone = quantile(&[quiet_before, quiet_after].concat(), 0.99);
        let ratio = quantile(&beside, 0.99) / alone;
        floor.push(quantile(&beside_writes, 0.99) / alone);
        println!(
            "round {number}: rate / device {:.2} {:.2}; neighbour p99 alone {alone:.0} µs, beside {:.0} µs ({} asked), \
             beside plain writes {:.0} µs",
            rates[0],
            rates[1],
            alone * ratio,
            beside.len(),
            quantile(&beside_writes, 0.99)
        );
        device.extend(rates);
        p99.push(ratio);
    }
    drop(neighbour);
    Ok(vec![
        Figure::new("device_ratio", median_of_rounds(&device), Goal::AtLeast(0.8)),
        Figure::new("neighbour_p99_ratio", median_of_rounds(&p99), Goal::AtMost(1.1)),
        Figure::new("neighbour_floor_ratio", median_of_rounds(&floor), Goal::Reported),
        Figure::new("rewritten_ratio", median_of_rounds(&again), Goal::AtMost(0.05)),
    ])
}

/// Bytes a second that the device takes in sequence.
fn rate(file: &Path) -> Result<f64> {
    let took = disk::transfer(file, Way::Write, &[(0, MIB << 20)], DEPTH)?;
    Ok((MIB << 20) as f64 / took.as_secs_f64())
}

/// Microseconds of each answer of the neighbour.
fn ask_for(duration: Duration) -> Result<Vec<f64>> {
    let ((), asked) = beside_asking(|| {
        thread::sleep(duration);
        Ok(())
    })?;
    Ok(asked)
}

fn beside_asking<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Vec<f64>)> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| -> Result<Vec<f64>> {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
            socket.connect(SocketAddr::from(([127, 0, 0, 1], PORT)))?;
            socket.set_read_timeout(Some(Duration::from_secs(5)))?;
            let (mut took, mut buffer) = (vec![], [0; 256]);
            while !done.load(Relaxed) {
                let asked = Instant::now();
                socket.send(b"still there?")?;
                socket.recv(&mut buffer)?;
                took.push(asked.elapsed().as_secs_f64() * 1e6);
                thread::sleep(ASK_EVERY.saturating_sub(asked.elapsed()));
            }
            Ok(took)
        });
        let outcome = work();
        done.store(true, Relaxed);
        let took = asking.join().map_err(|_| anyhow::anyhow!("the asking thread panicked"))??;
        Ok((outcome?, took))
    })
}

fn pages_written() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/vmstat")?;
    let line = text.lines().find_map(|line| line.strip_prefix("pswpout "));
    Ok(line.context("pswpout of /proc/vmstat")?.parse()?)
}
