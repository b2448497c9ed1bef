//! The way up: brings a server's working set back while it already runs. Bounded: only what is on swap, only
//! two steps ahead, so that a page the server faults on itself never waits behind a deep queue.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::advise::{Advice, Target};
use super::pagemap::{Pagemap, State};
use super::ranges::{self, Span, page_size};
use super::swap::Facts;
use super::working_set::{ProcessKey, Wake, WorkingSets};
use super::{Cancel, Error, Result, regions};

/// Steps of 2 MiB that are asked for ahead of the one being mapped.
const AHEAD: usize = 2;
/// Bytes that a wake without a record brings to the swap cache, of each process. The rest comes as it is
/// touched: reading a whole heap for a first wake would undo the saving.
const UNRECORDED: u64 = 256 << 20;
/// Threads for all processes of one server together: each may have `AHEAD` steps in the device's queue.
const THREADS: usize = 4;

/// What a prefetch did.
#[derive(Debug)]
pub struct Prefetched {
    pub wake: Wake,
    /// To be brought back, in bytes: the working set as far as it was on swap.
    pub wanted: u64,
    /// Brought back, in bytes: mapped, or asked for into the swap cache by a learning wake.
    pub brought: u64,
    pub took: Duration,
    pub cancelled: bool,
    /// Processes whose memory could not be brought back: they fault for themselves, more slowly. A process
    /// that ended is none of them.
    pub failed: Vec<Error>,
}

/// Bytes wanted and brought back so far, for whoever watches from another thread.
#[derive(Debug, Default)]
pub struct Progress {
    wanted: AtomicU64,
    brought: AtomicU64,
}

impl Progress {
    pub fn wanted(&self) -> u64 {
        self.wanted.load(Ordering::Relaxed)
    }

    pub fn brought(&self) -> u64 {
        self.brought.load(Ordering::Relaxed)
    }
}

/// How pages come back.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// A disk: ask ahead, then map. Measured at the device's own speed.
    Pipeline,
    /// zram: a page is there at once, so asking first would be double work.
    Map,
    /// A learning wake: ask only, so that mapped stays the same as touched. One page in 512 is mapped, to
    /// know when a step has arrived: the queue has to stay short here too.
    Ask,
}

/// Brings back the working sets of `pids`, one thread a process; blocks until done. Start it and thaw at
/// once. It never fails as a whole: no wake may depend on it.
///
/// Without a record the wake is a learning one: up to 256 MiB of each process are read into the swap cache
/// in the order of their addresses, and the server's own faults bring the rest.
pub fn prefetch(pids: &[i32], sets: &WorkingSets, progress: &Progress, cancel: &Cancel) -> Prefetched {
    let started = Instant::now();
    let wake = sets.next_wake();
    let way = match wake {
        Wake::Learning => Way::Ask,
        Wake::Mapped if Facts::read().is_ok_and(|swap| swap.only_zram()) => Way::Map,
        Wake::Mapped => Way::Pipeline,
    };
    let next = AtomicUsize::new(0);
    let work = || {
        let mut failed = Vec::new();
        while let Some(pid) = pids.get(next.fetch_add(1, Ordering::Relaxed)) {
            match bring_back(*pid, sets, way, progress, cancel) {
                Ok(()) | Err(Error::Gone { .. }) => {}
                Err(error) => failed.push(error),
            }
        }
        failed
    };
    let failed = thread::scope(|scope| {
        let threads: Vec<_> = (0..pids.len().min(THREADS)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|t| t.join().unwrap_or_default()).collect()
    });
    Prefetched {
        wake,
        wanted: progress.wanted(),
        brought: progress.brought(),
        took: started.elapsed(),
        cancelled: cancel.is_cancelled(),
        failed,
    }
}

fn bring_back(pid: i32, sets: &WorkingSets, way: Way, progress: &Progress, cancel: &Cancel) -> Result<()> {
    let target = Target::open(pid)?;
    let pagemap = Pagemap::open(pid)?;
    let wanted = match sets.get(ProcessKey::of(pid)?) {
        Some(recorded) => pagemap.pages(State::Swapped, &recorded)?,
        None => ranges::first(&pagemap.pages(State::Swapped, &regions::anonymous(pid)?)?, UNRECORDED),
    };
    progress.wanted.fetch_add(ranges::total(&wanted), Ordering::Relaxed);
    let steps = ranges::steps(&wanted);
    let mut asked = 0;
    for (current, step) in steps.iter().enumerate() {
        while asked < steps.len().min(current + 1 + AHEAD) && !matches!(way, Way::Map) {
            if cancel.is_cancelled() {
                return Ok(());
            }
            // A kernel before 5.15 refuses: then touching does all the work.
            target.advise(Advice::WillNeed, &steps[asked])?;
            asked += 1;
        }
        if cancel.is_cancelled() {
            return Ok(());
        }
        let brought = match way {
            Way::Pipeline | Way::Map => target.touch(step)?.pages * page_size(),
            Way::Ask => {
                target.touch(&last_page(step))?;
                ranges::total(step)
            }
        };
        progress.brought.fetch_add(brought, Ordering::Relaxed);
    }
    Ok(())
}

fn last_page(step: &[Span]) -> Vec<Span> {
    step.last().map(|span| Span::new(span.end - page_size(), span.end)).into_iter().collect()
}
