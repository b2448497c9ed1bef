//! What the node really gets of a sleeper: weighed beside the daemon's own book, with mapped files that must stay, and a
//! neighbour who moves the machine's counters.

use std::fs;
use std::io::Write;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dormouse_tests::{owner, swap::Swap};

use super::sleeper::{Sleeper, numbers};
use crate::{
    report::{Figure, Goal},
    stats::{Estimate, median_of_rounds},
};

const MIB: u64 = 1024;
const FILE_MIB: u64 = 300;
const NEIGHBOUR_MIB: u64 = 512;

/// Shares of the anonymous memory, but for the files'.
struct Round {
    handed_back: f64,
    a_minute_later: f64,
    file_lost: f64,
    book_error: f64,
}

pub fn run(quick: bool) -> Result<Vec<Figure>> {
    let (rounds, wait) = if quick { (2, Duration::from_secs(5)) } else { (5, Duration::from_mins(1)) };
    let _swap = Swap::measurable(4096)?;
    let dir = owner::temp_dir("jar")?;
    let file = dir.path().join("mapped");
    let mut out = fs::File::create(&file)?;
    (0..FILE_MIB).try_for_each(|number| out.write_all(&vec![number as u8; 1 << 20]))?;
    out.sync_all()?;
    let path = file.to_str().context("a path")?;
    let mut sleeper = Sleeper::new(&["--mib", &MIB.to_string(), "--file", path])?;
    let mut neighbour = Sleeper::new(&["--mib", &NEIGHBOUR_MIB.to_string()])?;
    let kills = oom_kills()?;
    let mut seen = vec![];
    for number in 0..rounds {
        sleeper.ask("dirty")?;
        let weight =
            sleeper.weight.as_ref().context("no memory controller to weigh with (v1): run it in the VM")?;
        let (before, files) = (weight.usage()?, weight.files()?);
        // The neighbour goes on writing all its memory, and the page cache grows and shrinks.
        let (out, _) = beside(&mut neighbour, &file, || sleeper.sleep())?;
        let weight = sleeper.weight.as_ref().context("weight")?;
        let anonymous = out.anonymous as f64;
        let measured = before.saturating_sub(weight.usage()?) as f64;
        let file_lost = 1.0 - weight.files()? as f64 / files as f64;
        thread::sleep(wait);
        let later = before.saturating_sub(weight.usage()?) as f64;
        let round = Round {
            handed_back: measured / anonymous,
            a_minute_later: later / anonymous,
            file_lost: file_lost.max(0.0),
            book_error: (out.handed_back.bytes as f64 - measured).abs() / measured,
        };
        println!(
            "round {number}: handed back {:.3}, later {:.3}, files lost {:.3}, book {:.3} off (estimated: {}), {:.1?}",
            round.handed_back,
            round.a_minute_later,
            round.file_lost,
            round.book_error,
            out.handed_back.estimated,
            out.took
        );
        seen.push(round);
        sleeper.cgroup.freeze(false)?;
        let check = numbers(&sleeper.ask("check")?)?;
        ensure!(check[0] == 0, "{} pages are not what was written", check[0]);
    }
    let of = |value: fn(&Round) -> f64| -> Estimate {
        median_of_rounds(&seen.iter().map(value).collect::<Vec<_>>())
    };
    Ok(vec![
        Figure::new("handed_back_ratio", of(|round| round.handed_back), Goal::AtLeast(0.9)),
        Figure::new("handed_back_later_ratio", of(|round| round.a_minute_later), Goal::AtLeast(0.9)),
        Figure::new("file_lost_ratio", of(|round| round.file_lost), Goal::AtMost(0.05)),
        Figure::new("book_error", of(|round| round.book_error), Goal::AtMost(0.05)),
        Figure::count("oom_kills", oom_kills()? - kills),
    ])
}

/// Runs `work` while the neighbour writes to all its memory again and again, and a file is read through the page cache.
fn beside<T>(
    neighbour: &mut Sleeper,
    file: &std::path::Path,
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, usize)> {
    let done = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let busy = scope.spawn(|| -> Result<usize> {
            let mut times = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                neighbour.ask("dirty")?;
                times += fs::read(file)?.len() >> 20;
            }
            Ok(times)
        });
        let outcome = work();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        let times = busy.join().map_err(|_| anyhow::anyhow!("the neighbour's thread panicked"))??;
        Ok((outcome?, times))
    })
}

fn oom_kills() -> Result<u64> {
    let text = fs::read_to_string("/proc/vmstat")?;
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    Ok(line.context("oom_kill of /proc/vmstat")?.parse()?)
}
