//! The way down: everything anonymous that a frozen server holds goes to swap, and is handed back to the node.
//!
//! Two parts, because the second may wait: [`write_out`] moves the pages to swap, where (on a disk) they also
//! stay in the swap cache, and [`WrittenOut::sweep`] empties that. A server that wakes in between reads
//! nothing from the disk. [`page_out`] does both at once.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use procfs::{Current, Meminfo, MemoryPressure};

use super::advise::Advice;
use super::group::{Group, WriteLimit};
use super::judge::{HandedBack, Judge, swap_cached, writeback};
use super::plan::{Moved, Plan, on_swap, own_in_swap_cache};
use super::ranges;
use super::regions::Skip;
use super::swap::Facts;
use super::{Cancel, Error, Result, sweep, sys};

/// Steps between two looks at pressure, swap and freezer: 32 MiB, some 20 ms on an SSD.
pub(super) const LOOK_EVERY: usize = 16;
/// One part in this many of all swap stays free: the machine's own reclaim needs it too.
const SWAP_RESERVE: u64 = 20;
const WRITEBACK_WAIT: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Bytes that stay resident (`resident_min`).
    pub keep: u64,
    /// Stop when all tasks of the machine stalled on memory for more than this share of the last ten seconds;
    /// percent, `full avg10` of /proc/pressure/memory (Documentation/accounting/psi.rst).
    pub pressure: f32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { keep: 0, pressure: 10.0 }
    }
}

/// Why a page-out ended before everything was out. What is out stays out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stop {
    #[error("somebody knocked, or the node was short of memory")]
    Cancelled,
    #[error("the whole machine waited for memory too often (/proc/pressure/memory)")]
    Pressure,
    #[error(
        "no more fits on swap: its reserve, the half of it that can be swept without memory.reclaim, or a limit of a \
         cgroup above; add swap: `dormouse preflight` says how much the servers here want"
    )]
    SwapFull,
    #[error("somebody thawed it: its memory is in use")]
    Thawed,
}

/// What a page-out did. Bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct PagedOut {
    /// Anonymous memory that was resident before.
    pub anonymous: u64,
    /// Of it, what is on swap now.
    pub paged_out: u64,
    /// Of that, what is still in the swap cache too (without a v2 memory controller: as far as the machine's
    /// own counter tells).
    pub swap_cached: u64,
    pub handed_back: HandedBack,
    /// Resident memory left alone, by reason.
    pub skipped: BTreeMap<Skip, u64>,
    /// What the kernel refused although it looked movable.
    pub refused: u64,
    pub stopped: Option<Stop>,
    /// More than half of the swap is used: the next sleep writes everything again.
    pub swap_half_used: bool,
    /// Working time; a pause between the two parts is not counted.
    pub took: Duration,
}

/// A server's memory on its way: on swap, but maybe in the swap cache too.
#[derive(Debug)]
pub struct WrittenOut {
    group: Group,
    moved: Vec<Moved>,
    judge: Judge,
    done: PagedOut,
    baseline: Baseline,
    bounds: Bounds,
    /// Bytes of swap.
    used_at_most: u64,
}

/// What the counters said of others before, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Baseline {
    pub(super) swap_cached: u64,
    pub(super) writeback: u64,
}

impl Baseline {
    /// The swap cache counts here as far as it is others': where the kernel counts this server alone, nothing of it;
    /// else less what this server has there itself, of pages that it only read since its last sleep.
    fn new(group: &Group, cached: u64, moved: &[Moved]) -> Result<Self> {
        let others =
            if group.has_memory_controller() { 0 } else { cached.saturating_sub(own_in_swap_cache(moved)) };
        Ok(Self { swap_cached: others, writeback: writeback(group)? })
    }

    pub(super) fn left_in_swap_cache(self, group: &Group) -> Result<u64> {
        Ok(swap_cached(group)?.saturating_sub(self.swap_cached))
    }
}

/// Pages out all processes of a frozen cgroup and sweeps at once. Blocks: about a second per GiB.
///
/// # Errors
/// [`Error::NoSwap`], [`Error::SwapForbidden`], missing rights, or a cgroup that is gone. A process that ends
/// meanwhile is no error.
pub fn page_out(
    group: &Group,
    bounds: Bounds,
    cancel: &Cancel,
    write_limit: &mut WriteLimit<'_>,
) -> Result<PagedOut> {
    write_out(group, bounds, cancel, write_limit)?.sweep(cancel)
}

/// Runs `work` on a thread that comes after everybody else at the CPU: nobody waits for a page-out, and a neighbour's
/// players must not notice it.
fn behind<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let on_its_thread = || {
        sys::go_last();
        work()
    };
    thread::scope(|scope| scope.spawn(on_its_thread).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

/// The first part alone.
///
/// # Errors
/// As [`page_out`].
pub fn write_out(
    group: &Group,
    bounds: Bounds,
    cancel: &Cancel,
    write_limit: &mut WriteLimit<'_>,
) -> Result<WrittenOut> {
    let swap = Facts::read()?;
    if swap.size() == 0 {
        return Err(Error::NoSwap);
    }
    if group.has_memory_controller() {
        group.lift_swap_limit(write_limit)?;
    }
    // Half of the reserve: the plan itself may fill up to all of it. What is used already is no growth.
    let used_at_most = usable(group, &swap).saturating_sub(reserve(&swap) / 2).max(swap.used());

    let started = Instant::now();
    let mut judge = Judge::new(group);
    let turn_held = turn(group, cancel);
    let cached_before = swap_cached(group)?;
    let plan = Plan::of_group(group, bounds.keep, fits(group, &swap, cached_before)?)?;
    let baseline = Baseline::new(group, cached_before, &plan.moved)?;
    let mut done = PagedOut {
        anonymous: plan.anonymous,
        skipped: plan.skipped,
        stopped: plan.cut.then_some(Stop::SwapFull),
        ..PagedOut::default()
    };
    let moved = plan.moved;
    judge.watch(group, || {
        let stopped = behind(|| run(group, &moved, bounds, used_at_most, cancel, &mut done.refused))?;
        done.stopped = stopped.or(done.stopped);
        wait_for_writeback(group, baseline, cancel)
    })?;
    drop(turn_held);
    done.paged_out = on_swap(&moved);
    done.swap_cached = baseline.left_in_swap_cache(group)?.min(done.paged_out);
    done.swap_half_used = Facts::read()?.half_used();
    done.took = started.elapsed();
    Ok(WrittenOut { group: group.clone(), moved, judge, done, baseline, bounds, used_at_most })
}

impl WrittenOut {
    /// Leaves it in the swap cache for so long, or until the machine's memory grows short, or a knock.
    pub fn wait_until_needed(&self, at_most: Duration, cancel: &Cancel) {
        const LOOK: Duration = Duration::from_millis(50);
        /// Of the machine's memory: what is available beyond it is needed by nobody.
        const PLENTY: u64 = 4;
        let short =
            || Meminfo::current().is_ok_and(|info| info.mem_available.unwrap_or(0) < info.mem_total / PLENTY);
        let until = Instant::now() + at_most;
        while Instant::now() < until && !cancel.is_cancelled() && !short() {
            thread::sleep(LOOK);
        }
    }

    /// Writes out again what it touched or made while it ran for a moment. (A collector that ran meanwhile has moved
    /// the heap to new mappings.)
    ///
    /// # Errors
    /// As [`write_out`].
    pub fn again(&mut self, cancel: &Cancel) -> Result<()> {
        let started = Instant::now();
        let turn_held = turn(&self.group, cancel);
        let fits = fits(&self.group, &Facts::read()?, swap_cached(&self.group)?)?;
        let mut plan = Plan::of_group(&self.group, self.bounds.keep, fits)?;
        plan.add_what_is_out(&self.moved);
        self.done.anonymous = plan.anonymous;
        self.done.skipped = plan.skipped;
        self.done.refused = 0;
        self.done.stopped = plan.cut.then_some(Stop::SwapFull);
        self.moved = plan.moved;
        let (group, moved, baseline) = (&self.group, &self.moved, self.baseline);
        let (bounds, used_at_most, refused) = (self.bounds, self.used_at_most, &mut self.done.refused);
        let stopped = self.judge.watch(group, || {
            let stopped = behind(|| run(group, moved, bounds, used_at_most, cancel, refused))?;
            wait_for_writeback(group, baseline, cancel)?;
            Ok(stopped)
        })?;
        drop(turn_held);
        self.done.stopped = stopped.or(self.done.stopped);
        self.done.took += started.elapsed();
        Ok(())
    }

    /// Empties the swap cache of what was written. Not after a cancel or a thaw: the server is about to need
    /// it.
    ///
    /// # Errors
    /// Missing rights, or a cgroup that is gone.
    pub fn sweep(mut self, cancel: &Cancel) -> Result<PagedOut> {
        if matches!(self.done.stopped, Some(Stop::Cancelled | Stop::Thawed)) {
            return Ok(self.finish());
        }
        let started = Instant::now();
        let turn_held = turn(&self.group, cancel);
        let (group, moved, baseline) = (&self.group, &self.moved, self.baseline);
        let stopped = self.judge.watch(group, || behind(|| sweep::sweep(group, moved, baseline, cancel)))?;
        drop(turn_held);
        self.done.stopped = stopped.or(self.done.stopped);
        self.done.paged_out = on_swap(&self.moved);
        self.done.swap_cached = self.baseline.left_in_swap_cache(&self.group)?.min(self.done.paged_out);
        self.done.took += started.elapsed();
        Ok(self.finish())
    }

    /// What the first part did; nothing is counted as handed back that is still in the swap cache.
    pub fn so_far(&self) -> &PagedOut {
        &self.done
    }

    fn finish(self) -> PagedOut {
        PagedOut {
            handed_back: self.judge.handed_back(self.done.paged_out, self.done.swap_cached),
            ..self.done
        }
    }
}

/// Without a v2 memory controller what was handed back is told from the machine's own counters, so only one
/// page-out may move them at a time: hold this while it does. `None`: no need to wait, or cancelled, after
/// which no step follows.
fn turn(group: &Group, cancel: &Cancel) -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    if group.has_memory_controller() {
        return None;
    }
    while !cancel.is_cancelled() {
        match TURN.try_lock() {
            Ok(turn) => return Some(turn),
            Err(TryLockError::Poisoned(turn)) => return Some(turn.into_inner()),
            Err(TryLockError::WouldBlock) => thread::sleep(POLL),
        }
    }
    None
}

/// Bytes of swap that may be in use. Only half of a disk where the sweep has to touch pages: from half on
/// (`vm_swap_full`) a touched page loses its slot, and PAGEOUT writes it again instead of freeing it.
fn usable(group: &Group, swap: &Facts) -> u64 {
    let touches = !swap.only_zram() && group.anonymous_only().is_none();
    if touches { swap.size() / 2 } else { swap.size() }
}

/// Bytes that still fit. A page that was only read since its last sleep is in the swap cache and still owns its slot.
/// (Counted for the whole machine it may be too many: the look between steps has the last word.)
fn fits(group: &Group, swap: &Facts, swap_cached: u64) -> Result<u64> {
    let above = group.swap_room()?.unwrap_or(u64::MAX);
    let free = usable(group, swap).saturating_sub(swap.used()).saturating_sub(reserve(swap)).min(above);
    Ok(free.saturating_add(swap_cached))
}

fn reserve(swap: &Facts) -> u64 {
    swap.size() / SWAP_RESERVE
}

fn run(
    group: &Group,
    moved: &[Moved],
    bounds: Bounds,
    used_at_most: u64,
    cancel: &Cancel,
    refused: &mut u64,
) -> Result<Option<Stop>> {
    let mut count = 0;
    for process in moved {
        for step in ranges::steps(&process.advised) {
            if cancel.is_cancelled() {
                return Ok(Some(Stop::Cancelled));
            }
            if count % LOOK_EVERY == 0
                && let Some(stop) = look(group, bounds, used_at_most)?
            {
                return Ok(Some(stop));
            }
            count += 1;
            match process.target.advise(Advice::PageOut, &step) {
                Ok(advised) => *refused += advised.refused,
                Err(Error::Gone { .. }) => break,
                Err(e) => return Err(e),
            }
        }
    }
    Ok(None)
}

fn look(group: &Group, bounds: Bounds, used_at_most: u64) -> Result<Option<Stop>> {
    if !group.is_frozen()? {
        return Ok(Some(Stop::Thawed));
    }
    if Facts::read()?.used() > used_at_most {
        return Ok(Some(Stop::SwapFull));
    }
    // A kernel without PSI (CONFIG_PSI, psi=0) can't warn: the swap's limits still hold.
    let pressed = MemoryPressure::current().is_ok_and(|psi| psi.full.avg10 > bounds.pressure);
    Ok(pressed.then_some(Stop::Pressure))
}

/// Pages under writeback can't be freed. Without a v2 memory controller the whole machine's are counted, so
/// others' writes may make it wait in vain: it is bounded.
pub(super) fn wait_for_writeback(group: &Group, baseline: Baseline, cancel: &Cancel) -> Result<()> {
    const SLACK: u64 = 1 << 20;
    let deadline = Instant::now() + WRITEBACK_WAIT;
    while !cancel.is_cancelled() && Instant::now() < deadline {
        if writeback(group)? <= baseline.writeback + SLACK {
            break;
        }
        thread::sleep(POLL);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_outs_that_share_counters_take_turns() {
        let group = Group::new("/nowhere");
        let first = turn(&group, &Cancel::default());
        assert!(first.is_some());
        let cancel = Cancel::default();
        thread::scope(|scope| {
            let second = scope.spawn(|| turn(&group, &cancel).is_some());
            cancel.cancel();
            assert!(!second.join().unwrap_or(true), "a knock ends the waiting");
        });
        drop(first);

        let counted = tempfile::tempdir().unwrap();
        std::fs::write(counted.path().join("memory.current"), "1").unwrap();
        let counted = Group::new(counted.path());
        assert!(turn(&counted, &Cancel::default()).is_none(), "counted alone: no need");
    }
}
