//! The way up: brings a server's working set back while it already runs. Bounded: only what is on swap and has room,
//! only a few steps ahead, so that a page the server faults on itself never waits behind a deep queue.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::advise::{Advice, Target};
use super::pagemap::{Pagemap, State};
use super::ranges::{self, Span, page_size};
use super::swap::Facts;
use super::working_set::{ProcessKey, Wake, WorkingSets};
use super::{Cancel, Error, Result, regions, sweep, sys};

/// Bytes that a wake without a record brings to the swap cache. The rest comes as it is touched: reading a whole heap
/// for a first wake would undo the saving.
pub const UNRECORDED: u64 = 256 << 20;
/// Bytes in a step. What is under way while the server runs, three steps, is what a fault of its own waits behind: one
/// to three milliseconds on an SSD. Seen: with steps of 2 MiB and 128 pieces a Minecraft server's main
/// thread got one or two of its own faults done in 10 ms.
const STEP: u64 = 1 << 20;
/// Single pieces in a step: each is a request of its own, and the queue has to stay short in requests too.
const PIECES: usize = 48;
/// Threads where the kernel has no remote WILLNEED: each waits for one page at a time.
const READERS: usize = 4;

const POLL: Duration = Duration::from_millis(1);

/// What runs while the pages come back.
#[derive(Clone, Copy)]
pub enum Beside<'a> {
    /// The server: its own faults must not wait long. While it is `answering` its first player, only what it needed
    /// first the last times is brought: a fault of its own then waits for nothing else (0.07 ms on an SSD, 0.6 ms
    /// beside this).
    Server { answering: &'a (dyn Fn() -> bool + Sync) },
    /// Nobody: it is thawed afterwards.
    Nobody,
}

impl Beside<'_> {
    /// A server whose answer is not waited for.
    pub const SERVER: Self = Self::Server { answering: &|| false };

    /// Steps that are asked for ahead of the one being mapped.
    fn steps_ahead(self) -> usize {
        match self {
            Self::Server { .. } => 2,
            Self::Nobody => 16,
        }
    }

    fn is_answering(self) -> bool {
        match self {
            Self::Server { answering } => answering(),
            Self::Nobody => false,
        }
    }
}

/// What processes needed for the first answer, and later or not at all the last times.
pub type Early = Vec<(ProcessKey, Vec<Span>)>;

/// What a prefetch did.
#[derive(Debug)]
pub struct Prefetched {
    pub wake: Wake,
    /// To be brought back, in bytes: the working set as far as it was on swap.
    pub wanted: u64,
    /// Brought back, in bytes: mapped, or asked for into the swap cache by a learning wake.
    pub brought: u64,
    /// Left out for lack of room, in bytes.
    pub no_room: u64,
    /// Until the first page was asked for.
    pub planned: Duration,
    pub took: Duration,
    pub cancelled: bool,
    pub early: Early,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// A disk: one thread asks ahead, another maps. Measured at the device's own speed.
    Pipeline,
    /// Map on so many threads. zram: a page is there at once, so asking first would be double work, and the CPU is the
    /// limit. A disk under a kernel that can't be asked: each thread waits for one page.
    Map { threads: usize },
    /// A learning wake: ask only, so that mapped stays the same as touched. One page in 512 is mapped, to
    /// know when a step has arrived: the queue has to stay short here too.
    Ask,
    /// A learning wake that can't ask: the server's own faults bring everything.
    Leave,
}

impl Way {
    fn of(wake: Wake) -> Self {
        let zram = Facts::read().is_ok_and(|swap| swap.only_zram());
        let cores = thread::available_parallelism().map_or(1, usize::from);
        match wake {
            Wake::Learning if zram || !can_ask() => Self::Leave,
            Wake::Learning => Self::Ask,
            Wake::Mapped if zram => Self::Map { threads: cores },
            Wake::Mapped if !can_ask() => Self::Map { threads: READERS },
            Wake::Mapped => Self::Pipeline,
        }
    }
}

/// Whether this kernel takes WILLNEED for another process (since 5.15; its address space must be its own page here).
fn can_ask() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        let here = &raw const CAN as u64 & !(page_size() - 1);
        let own = [Span::new(here, here + page_size())];
        let target = Target::open(nix::unistd::getpid().as_raw());
        target
            .and_then(|own_process| own_process.advise(Advice::WillNeed, &own))
            .is_ok_and(|a| a.refused == 0)
    })
}

/// One step of bringing back.
struct Step {
    /// Of the process, in `Plan::targets`.
    target: usize,
    pages: Vec<Span>,
}

#[derive(Default)]
struct Plan {
    targets: Vec<Target>,
    steps: Vec<Step>,
    /// Of the steps, those that a first answer takes.
    first: usize,
    wanted: u64,
    no_room: u64,
    failed: Vec<Error>,
}

impl Plan {
    /// What was needed first of all processes comes before what was needed next.
    fn new(pids: &[i32], sets: &WorkingSets, room: u64) -> Self {
        let mut plan = Self::default();
        let mut groups: Vec<Vec<(usize, Vec<Span>)>> = vec![];
        for pid in pids {
            match wanted(*pid, sets) {
                Ok((target, of_process)) => {
                    let number = plan.targets.len();
                    plan.targets.push(target);
                    for (at, group) in of_process.into_iter().enumerate() {
                        if groups.len() <= at {
                            groups.push(vec![]);
                        }
                        groups[at].push((number, group));
                    }
                }
                Err(Error::Gone { .. }) => {}
                Err(error) => plan.failed.push(error),
            }
        }
        let mut room = room;
        for (number, of_processes) in groups.into_iter().enumerate() {
            for (target, group) in of_processes {
                let fits = ranges::first(&group, room);
                let bytes = ranges::total(&fits);
                room -= bytes;
                plan.wanted += ranges::total(&group);
                plan.no_room += ranges::total(&group) - bytes;
                let steps = ranges::steps_of(&fits, STEP, PIECES);
                plan.steps.extend(steps.into_iter().map(|pages| Step { target, pages }));
            }
            if number == 0 {
                plan.first = plan.steps.len();
            }
        }
        plan
    }
}

/// The groups of a process's set, as far as they are on swap now.
fn wanted(pid: i32, sets: &WorkingSets) -> Result<(Target, Vec<Vec<Span>>)> {
    let target = Target::open(pid)?;
    let pagemap = Pagemap::open(pid)?;
    let groups = if let Some(groups) = sets.get(ProcessKey::of(pid)?) {
        // One walk over all of it, rather than one a group.
        let whole = ranges::joined(groups.concat(), 0);
        let swapped = pagemap.pages(State::Swapped, &whole)?;
        groups.iter().map(|group| ranges::intersection(group, &swapped)).collect()
    } else {
        let swapped = pagemap.pages(State::Swapped, &regions::anonymous(pid)?)?;
        vec![ranges::first(&swapped, UNRECORDED)]
    };
    Ok((target, groups))
}

/// Brings back the working sets of `pids`, as far as it takes no more than `room` bytes; blocks until done. Start it
/// and thaw at once, or thaw after it (`beside`). It never fails as a whole: no wake may depend on it.
///
/// Without a record the wake is a learning one: up to 256 MiB are read into the swap cache in the order of their
/// addresses, and the server's own faults bring the rest.
pub fn prefetch(
    pids: &[i32],
    sets: &WorkingSets,
    beside: Beside<'_>,
    room: u64,
    progress: &Progress,
    cancel: &Cancel,
) -> Prefetched {
    let started = Instant::now();
    let wake = sets.next_wake();
    let way = Way::of(wake);
    let Plan { targets, steps, first, wanted, no_room, mut failed } = Plan::new(pids, sets, room);
    progress.wanted.fetch_add(wanted, Ordering::Relaxed);
    let planned = started.elapsed();
    let work = Work { targets, steps, first, way, beside, early: OnceLock::new(), progress, cancel };
    failed.extend(thread::scope(|scope| scope.spawn(|| work.run()).join()).unwrap_or_default());
    Prefetched {
        wake,
        wanted,
        brought: progress.brought(),
        no_room,
        planned,
        took: started.elapsed(),
        cancelled: cancel.is_cancelled(),
        early: work.early.into_inner().unwrap_or_default(),
        failed,
    }
}

/// After a learning wake: what it asked for and the server never touched would stay in the swap cache for good. It goes
/// out again, without I/O. Bytes.
///
/// # Errors
/// [`Error::Gone`], or missing rights.
pub fn drop_untouched(pid: i32, sets: &WorkingSets) -> Result<u64> {
    let target = Target::open(pid)?;
    let pagemap = Pagemap::open(pid)?;
    let asked = if let Some(groups) = sets.get(ProcessKey::of(pid)?) {
        ranges::joined(groups.concat(), 0)
    } else {
        let anonymous = regions::anonymous(pid)?;
        let present = pagemap.pages(State::Present, &anonymous)?;
        ranges::first(&ranges::union(&pagemap.pages(State::Swapped, &anonymous)?, &present), UNRECORDED)
    };
    sweep::drop_cached(&target, &pagemap.pages(State::Swapped, &asked)?)
}

struct Work<'a> {
    targets: Vec<Target>,
    steps: Vec<Step>,
    first: usize,
    way: Way,
    beside: Beside<'a>,
    early: OnceLock<Early>,
    progress: &'a Progress,
    cancel: &'a Cancel,
}

impl Work<'_> {
    fn run(&self) -> Vec<Error> {
        // A woken server waits for it at every page; the threads started below inherit it.
        sys::go_first();
        match self.way {
            Way::Leave => vec![],
            Way::Pipeline | Way::Ask => self.pipeline(),
            Way::Map { threads } => {
                let next = AtomicUsize::new(0);
                thread::scope(|scope| {
                    let threads: Vec<_> =
                        (0..threads).map(|_| scope.spawn(|| self.map_next(&next))).collect();
                    threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
                })
            }
        }
    }

    /// This thread asks, another maps: the kernel's own work for either is about as long as the device's (2 µs a page),
    /// and while one thread did both, the device waited for it.
    fn pipeline(&self) -> Vec<Error> {
        // As many steps wait in the channel as may be asked for ahead, less the one whose sender waits for room.
        let (asked, coming) = sync_channel(self.beside.steps_ahead() - 1);
        let mut failed = Failures::default();
        let mapping = thread::scope(|scope| {
            let mapping = scope.spawn(move || self.map_as_asked(&coming));
            for (number, step) in self.steps.iter().enumerate() {
                if number == self.first {
                    self.hold();
                }
                if self.cancel.is_cancelled() {
                    break;
                }
                let outcome = self.targets[step.target].advise(Advice::WillNeed, &step.pages);
                failed.note(step.target, outcome.map(drop));
                if asked.send(step).is_err() {
                    break;
                }
            }
            drop(asked);
            mapping.join().unwrap_or_default()
        });
        mapping.all.into_iter().zip(mapping.of).for_each(|(error, target)| failed.note(target, Err(error)));
        failed.all
    }

    /// While the server is at its first answer the disk is its own.
    fn hold(&self) {
        if !self.beside.is_answering() {
            return;
        }
        while self.beside.is_answering() && !self.cancel.is_cancelled() {
            thread::sleep(POLL);
        }
        let _ = self.early.set(self.touched_of_the_rest());
    }

    /// Nobody has brought any of it yet.
    fn touched_of_the_rest(&self) -> Early {
        let of_target = |(number, target): (usize, &Target)| {
            let rest = self.steps[self.first..].iter().filter(|step| step.target == number);
            let rest = ranges::joined(rest.flat_map(|step| step.pages.iter().copied()).collect(), 0);
            // One that ended meanwhile has no next wake.
            let touched =
                Pagemap::open(target.pid()).and_then(|pagemap| pagemap.pages(State::Present, &rest)).ok()?;
            Some((ProcessKey::of(target.pid()).ok()?, touched))
        };
        self.targets.iter().enumerate().filter_map(of_target).collect()
    }

    fn map_as_asked(&self, coming: &Receiver<&Step>) -> Failures {
        let mut failed = Failures::default();
        for step in coming {
            if self.cancel.is_cancelled() {
                break;
            }
            let learning = self.way == Way::Ask;
            let outcome = if learning { self.arrived(step) } else { self.map(step) };
            failed.note(step.target, outcome);
        }
        failed
    }

    fn map_next(&self, next: &AtomicUsize) -> Vec<Error> {
        let mut failed = Failures::default();
        while let Some(step) = self.steps.get(next.fetch_add(1, Ordering::Relaxed)) {
            if self.cancel.is_cancelled() {
                break;
            }
            failed.note(step.target, self.map(step));
        }
        failed.all
    }

    fn map(&self, step: &Step) -> Result<()> {
        let touched = self.targets[step.target].touch(&step.pages)?;
        self.progress.brought.fetch_add(touched.pages * page_size(), Ordering::Relaxed);
        Ok(())
    }

    /// Waits until the last page of a step is there.
    fn arrived(&self, step: &Step) -> Result<()> {
        let last = step.pages.last().map(|span| Span::new(span.end - page_size(), span.end));
        self.targets[step.target].touch(&Vec::from_iter(last))?;
        self.progress.brought.fetch_add(ranges::total(&step.pages), Ordering::Relaxed);
        Ok(())
    }
}

/// The first failure of each process that has not just ended.
#[derive(Default)]
struct Failures {
    all: Vec<Error>,
    of: Vec<usize>,
}

impl Failures {
    fn note(&mut self, target: usize, outcome: Result<()>) {
        if let Err(error) = outcome
            && !matches!(error, Error::Gone { .. })
            && !self.of.contains(&target)
        {
            self.of.push(target);
            self.all.push(error);
        }
    }
}
