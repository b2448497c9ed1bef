//! Back from deep: the recorded working set by the pipeline against plain demand paging, and both against what the
//! device gives for the same places.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use dormouse_daemon::memory::pagemap::{Pagemap, State};
use dormouse_daemon::memory::ranges::{Span, intersection, total};
use dormouse_daemon::memory::working_set::{Looks, Wake as Kind, WorkingSets};
use dormouse_tests::swap::Swap;

use super::disk::{self, Way};
use super::sleeper::{Sleeper, Wake, on_device};
use crate::report::{Figure, Goal};
use crate::stats::{bootstrap, median, median_of_rounds};

const MIB: usize = 1024;
/// Requests under way at the device: runs are long, single pages are what its queue is deep for.
const DEPTH_OF_RUNS: usize = 32;
const DEPTH_OF_PAGES: usize = 128;

/// One wake beside what the device needs for the same places, just before and after.
struct Arm {
    wake: Wake,
    device: Duration,
}

/// A wake by demand and one by record, or two of each in the order A B B A.
struct Round {
    demand: Vec<Arm>,
    recorded: Vec<Arm>,
}

impl Round {
    fn took(arms: &[Arm]) -> f64 {
        arms.iter().map(|arm| arm.wake.took.as_secs_f64()).sum()
    }

    fn speedup(&self) -> f64 {
        (Self::took(&self.demand) / self.demand.len() as f64)
            / (Self::took(&self.recorded) / self.recorded.len() as f64)
    }

    fn device_ratio(&self) -> f64 {
        Self::took(&self.recorded) / self.recorded.iter().map(|arm| arm.device.as_secs_f64()).sum::<f64>()
    }

    fn worst_stall_ms(&self) -> f64 {
        self.recorded.iter().map(|arm| arm.wake.worst.as_secs_f64() * 1e3).fold(0.0, f64::max)
    }
}

pub fn run(quick: bool) -> Result<Vec<Figure>> {
    let rounds = if quick { 3 } else { 10 };
    let mut figures = vec![];
    {
        let swap = Swap::measurable(4096)?;
        let mut stand = Stand::new(swap.device())?;
        let runs = stand.rounds("runs", rounds)?;
        let scattered = stand.rounds("scattered", rounds)?;
        let all = stand.rounds("all", if quick { 1 } else { 3 })?;
        let stalls: Vec<f64> = runs.iter().chain(&scattered).map(Round::worst_stall_ms).collect();
        let speedup = |rounds: &[Round]| bootstrap(rounds, |drawn| median_by(drawn, Round::speedup));
        figures.push(Figure::new("runs_speedup", speedup(&runs), Goal::AtLeast(18.0)));
        figures.push(Figure::new("scattered_speedup", speedup(&scattered), Goal::AtLeast(7.0)));
        figures.push(Figure::new("all_speedup", speedup(&all), Goal::AtLeast(15.0)));
        let device = bootstrap(&runs, |drawn| median_by(drawn, Round::device_ratio));
        figures.push(Figure::new("device_ratio", device, Goal::AtMost(1.15)));
        let pages = bootstrap(&scattered, |drawn| median_by(drawn, Round::device_ratio));
        figures.push(Figure::new("scattered_device_ratio", pages, Goal::Reported));
        figures.push(Figure::new("worst_stall_ms", median_of_rounds(&stalls), Goal::AtMost(15.0)));
    }
    if let Some(swap) = Swap::zram(2048)? {
        let mut stand = Stand::new(swap.device())?;
        let rounds = stand.rounds("runs", rounds)?;
        let speedup = bootstrap(&rounds, |drawn| median_by(drawn, Round::speedup));
        figures.push(Figure::new("zram_speedup", speedup, Goal::AtLeast(1.8)));
    } else {
        println!("zram_speedup: left out, this machine has swap of its own or no zram");
    }
    Ok(figures)
}

fn median_by(rounds: &[&Round], of: impl Fn(&Round) -> f64) -> f64 {
    median(&rounds.iter().map(|round| of(round)).collect::<Vec<_>>())
}

struct Stand<'a> {
    device: &'a Path,
    sleeper: Sleeper,
}

impl<'a> Stand<'a> {
    fn new(device: &'a Path) -> Result<Self> {
        Ok(Self { device, sleeper: Sleeper::new(&["--mib", &MIB.to_string()])? })
    }

    fn rounds(&mut self, shape: &str, count: usize) -> Result<Vec<Round>> {
        let mut rounds = vec![];
        for number in 0..count {
            // Another set each round, learned by a wake of its own.
            self.sleeper.ask(&format!("set {shape} {}", number + 1))?;
            let (sets, pages) = self.learn()?;
            let demand = self.arm(&pages, None)?;
            let recorded = self.arm(&pages, Some(&sets))?;
            let round = if shape == "all" {
                Round { demand: vec![demand], recorded: vec![recorded] }
            } else {
                let again = self.arm(&pages, Some(&sets))?;
                Round { demand: vec![demand, self.arm(&pages, None)?], recorded: vec![recorded, again] }
            };
            let ms = |arms: &[Arm], of: fn(&Arm) -> Duration| {
                arms.iter()
                    .map(|arm| format!("{:.0}", of(arm).as_secs_f64() * 1e3))
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            println!(
                "{shape} {number}: {} MiB, ms: demand {}, recorded {} (worst stall {}), device {}",
                total(&pages) >> 20,
                ms(&round.demand, |arm| arm.wake.took),
                ms(&round.recorded, |arm| arm.wake.took),
                ms(&round.recorded, |arm| arm.wake.worst),
                ms(&round.recorded, |arm| arm.device),
            );
            rounds.push(round);
        }
        Ok(rounds)
    }

    /// Sleeps, and wakes without a record: what it touches becomes the record.
    fn learn(&mut self) -> Result<(WorkingSets, Vec<Span>)> {
        self.sleeper.sleep()?;
        let mut sets = WorkingSets::default();
        let kind = sets.next_wake();
        ensure!(kind == Kind::Learning, "a first wake learns");
        self.sleeper.wake(Some(&sets))?;
        let mut looks = Looks::new(kind);
        looks.look(self.sleeper.pid(), 0)?;
        sets.record(looks);
        let present = Pagemap::open(self.sleeper.pid())?.pages(State::Present, &[self.sleeper.memory])?;
        Ok((sets, present))
    }

    fn arm(&mut self, pages: &[Span], sets: Option<&WorkingSets>) -> Result<Arm> {
        self.sleeper.ask("dirty")?;
        let out = self.sleeper.sleep()?;
        let swapped = self.sleeper.swapped()?;
        ensure!(
            total(&intersection(&swapped, pages)) == total(pages) && out.swap_cached * 50 <= out.paged_out,
            "not all of it is out: {out:?}"
        );
        let depth = if pages.len() > 20_000 { DEPTH_OF_PAGES } else { DEPTH_OF_RUNS };
        let zram = self.device.to_string_lossy().starts_with("/dev/zram");
        let places = if zram { vec![] } else { on_device(self.sleeper.pid(), pages)? };
        let read = || match places.len() {
            0 => Ok(Duration::ZERO),
            _ => disk::transfer(self.device, Way::Read, &places, depth),
        };
        let before = read()?;
        let wake = match sets {
            Some(sets) => self.sleeper.wake(Some(sets))?,
            None => self.sleeper.wake_by_demand()?,
        };
        let failed = wake.prefetched.as_ref().is_some_and(|done| !done.failed.is_empty());
        ensure!(!failed, "{:?}", wake.prefetched);
        let after = read()?;
        Ok(Arm { wake, device: (before + after) / 2 })
    }
}
