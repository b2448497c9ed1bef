//! A deep sleeper's memory on its way back, from the very moment of the wake: threads of their own wait for it, since
//! whoever is told of a wake hears of it when the server runs already.
//!
//! When many are knocked on at once, they take turns: whoever waits for the disk stays frozen, lest its own page faults
//! take the disk from those before it (docs/decisions/0014).

use std::{
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::Ordering::SeqCst,
        mpsc::{Receiver, SyncSender, channel, sync_channel},
    },
    time::{Duration, Instant},
};

use tokio::sync::mpsc::UnboundedSender;

use super::{Report, Sleeper};
use crate::{
    door::Arrays,
    limits::BringBack,
    memory::{
        Cancel,
        group::Group,
        prefetch::{Beside, Early, Prefetched, Progress, drop_untouched, prefetch},
        refill,
        working_set::{Looks, Wake, WorkingSets},
    },
};

/// Servers whose memory comes back at the same time. The device is the limit: more share it and are later all.
const AT_ONCE: usize = 2;
/// The longest that a server stays frozen for its memory or its turn; then it runs, and the rest comes beside.
const FROZEN_AT_MOST: Duration = Duration::from_secs(1);
/// A first answer that takes longer is not waited for. (With all its memory a Minecraft server takes 7 ms.)
const ANSWERS_WITHIN: Duration = Duration::from_millis(100);
/// When a woken server is looked at: what it needed first is brought first the next time. The first look is as soon as it
/// has answered.
pub(super) const LOOKS: [Duration; 6] = [
    ANSWERS_WITHIN,
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1600),
    Duration::from_secs(5),
];
const POLL: Duration = Duration::from_millis(1);

/// What it takes to bring a server's memory back.
#[derive(Clone, Debug)]
pub struct Back {
    pub group: Group,
    /// The file of its working sets.
    pub sets: PathBuf,
    pub how: BringBack,
    /// What is expected to come, bytes: the least goes first.
    pub bytes: u64,
}

/// A server's turn.
struct Job {
    slot: u32,
    name: Arc<str>,
    back: Back,
    woken: Instant,
    arrays: Arc<Arrays>,
    /// Told when the server may run: at the beginning of its turn, or when its memory is there (`before`).
    may_run: Option<SyncSender<()>>,
}

#[derive(Default)]
struct Waiting {
    jobs: Mutex<Jobs>,
    came: Condvar,
}

#[derive(Default)]
struct Jobs {
    waiting: Vec<Job>,
    under_way: usize,
}

/// Hands wakes to the threads that bring memory back.
#[derive(Clone)]
pub struct Bringer(Arc<Waiting>);

impl Bringer {
    /// Starts the threads.
    ///
    /// # Errors
    /// No thread can be made.
    pub(super) fn start(reports: &UnboundedSender<Report>) -> std::io::Result<Self> {
        let waiting = Arc::new(Waiting::default());
        for _ in 0..AT_ONCE {
            let (waiting, reports) = (Arc::clone(&waiting), reports.clone());
            std::thread::Builder::new().name("dm-back".into()).spawn(move || {
                loop {
                    let job = waiting.next();
                    let done = job.carry_out(&reports, &|| waiting.is_empty());
                    waiting.done();
                    let _ = reports.send(Report::BroughtBack { slot: job.slot, done: Arc::new(done) });
                }
            })?;
        }
        Ok(Self(waiting))
    }

    fn give(&self, job: Job) {
        self.0.jobs().waiting.push(job);
        self.0.came.notify_one();
    }

    /// Whoever comes now has to wait for its turn.
    fn is_busy(&self) -> bool {
        let jobs = self.0.jobs();
        jobs.waiting.len() + jobs.under_way >= AT_ONCE
    }
}

impl Waiting {
    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the job with the least to do.
    fn next(&self) -> Job {
        let mut jobs = self.jobs();
        loop {
            let least = jobs.waiting.iter().enumerate().min_by_key(|(_, job)| job.back.bytes);
            match least.map(|(at, _)| at) {
                Some(at) => {
                    jobs.under_way += 1;
                    return jobs.waiting.swap_remove(at);
                }
                None => jobs = self.came.wait(jobs).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Nobody waits for the disk.
    fn is_empty(&self) -> bool {
        self.jobs().waiting.is_empty()
    }

    fn done(&self) {
        self.jobs().under_way -= 1;
    }
}

impl Job {
    /// Watches what it touches, and then brings the rest if that is wanted: on a thread that lives for seconds.
    fn look_on_beside(&self, reports: UnboundedSender<Report>, early: Receiver<Early>) {
        let slot = self.slot;
        let (name, back, woken) = (Arc::clone(&self.name), self.back.clone(), Instant::now());
        let arrays = Arc::clone(&self.arrays);
        let look = move || {
            await_answer(woken, || is_awaited(&arrays, slot));
            match look_on(&back, woken, &early) {
                Ok(sets) => {
                    let (bytes, wakes) = (sets.bytes(), sets.wakes() as u32);
                    let _ = reports.send(Report::Recorded { slot, bytes, wakes });
                }
                Err(error) => tracing::debug!(server = %name, %error, "a working set was not recorded"),
            }
            if back.how == BringBack::All {
                let done = refill::refill(&back.group);
                tracing::info!(server = %name, ?done, "the rest of its memory");
            }
        };
        if let Err(error) = std::thread::Builder::new().name("dm-looks".into()).spawn(look) {
            tracing::warn!(server = %self.name, %error, "no thread: the working set is not recorded");
        }
    }

    /// Blocks until its memory is there. `alone`: nobody else waits for the disk.
    fn carry_out(&self, reports: &UnboundedSender<Report>, alone: &(dyn Fn() -> bool + Sync)) -> Prefetched {
        let (tell_early, early) = channel();
        if self.back.how == BringBack::Before && self.may_run.is_some() {
            let done = self.prefetch(&Cancel::at(self.woken + FROZEN_AT_MOST), Beside::Nobody);
            self.let_run();
            self.look_on_beside(reports.clone(), early);
            if !done.cancelled {
                return done;
            }
        } else {
            self.let_run();
            self.look_on_beside(reports.clone(), early);
        }
        let answering =
            || alone() && self.woken.elapsed() < ANSWERS_WITHIN && is_awaited(&self.arrays, self.slot);
        let mut done = self.prefetch(&Cancel::default(), Beside::Server { answering: &answering });
        // It ended already: nothing is recorded.
        let _ = tell_early.send(std::mem::take(&mut done.early));
        done
    }

    fn let_run(&self) {
        if let Some(may_run) = &self.may_run {
            // Full: it was told before. Closed: it runs already.
            let _ = may_run.try_send(());
        }
    }

    fn prefetch(&self, cancel: &Cancel, beside: Beside<'_>) -> Prefetched {
        let back = &self.back;
        let sets = WorkingSets::load(&back.sets).unwrap_or_else(|error| {
            tracing::warn!(%error, "working sets can't be read: this wake is slower");
            WorkingSets::default()
        });
        let pids: Vec<i32> = back.group.pids().map(Vec::from_iter).unwrap_or_default();
        prefetch(&pids, &sets, beside, back.group.room(), &Progress::default(), cancel)
    }
}

impl Sleeper {
    /// From now on its memory is, or may be, on swap.
    pub fn set_back(&self, back: Back) {
        *self.back() = Some(back);
    }

    /// What is to come back when it wakes, bytes.
    pub(super) fn comes_back(&self) -> u64 {
        self.back().as_ref().map_or(0, |back| back.bytes)
    }

    /// Its memory comes back while it starts to run. Called once it is certain that it will.
    pub(super) fn bring_back(&self) {
        let Some(back) = self.back().take() else { return };
        self.node.bringer.give(self.job(back, None));
    }

    /// It can't be let run at once: its memory must be there before, or others are before it.
    pub(super) fn has_to_wait(&self) -> bool {
        let back = self.back();
        back.as_ref().is_some_and(|back| back.how == BringBack::Before || self.node.bringer.is_busy())
    }

    /// Waits until it may run, within bounds. Blocks. To be held until it does: whoever else wants to wake it waits for
    /// the same turn.
    pub(super) fn await_turn(&self) -> MutexGuard<'_, ()> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.has_to_wait() {
            return turn;
        }
        let Some(back) = self.back().take() else { return turn };
        let (may_run, told) = sync_channel(1);
        self.node.bringer.give(self.job(back, Some(may_run)));
        if told.recv_timeout(FROZEN_AT_MOST).is_err() {
            tracing::debug!(server = %self.name, "it runs before its turn: it was frozen long enough");
        }
        turn
    }

    fn job(&self, back: Back, may_run: Option<SyncSender<()>>) -> Job {
        let (name, arrays) = (Arc::clone(&self.name), Arc::clone(&self.node.arrays));
        Job { slot: self.slot, name, back, woken: Instant::now(), arrays, may_run }
    }

    fn back(&self) -> MutexGuard<'_, Option<Back>> {
        self.back.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the door still waits for the first answer after the wake.
fn is_awaited(arrays: &Arrays, slot: u32) -> bool {
    arrays.state(slot).await_answer_ns.load(SeqCst) != 0
}

/// Waits until it has answered, or until the first look is due. A server whose turn has just come is not awaited yet.
fn await_answer(woken: Instant, is_awaited: impl Fn() -> bool) {
    let mut was_awaited = false;
    while woken.elapsed() < ANSWERS_WITHIN {
        let awaited = is_awaited();
        if was_awaited && !awaited {
            return;
        }
        was_awaited |= awaited;
        std::thread::sleep(POLL);
    }
}

/// Records what a woken server touches, now and later; of a mapped wake what was not brought back.
fn look_on(back: &Back, woken: Instant, early: &Receiver<Early>) -> crate::memory::Result<WorkingSets> {
    let wake = WorkingSets::load(&back.sets)?.next_wake();
    let mut looks = Looks::new(wake);
    for (number, after) in LOOKS.iter().enumerate() {
        if number > 0 {
            std::thread::sleep((woken + *after).saturating_duration_since(Instant::now()));
        }
        for pid in back.group.pids()? {
            // One that ended meanwhile has nothing to tell.
            let _ = looks.look(pid, number);
        }
    }
    for (process, pages) in early.try_iter().flatten() {
        looks.early(process, pages);
    }
    let mut sets = WorkingSets::load(&back.sets)?;
    if wake == Wake::Learning {
        for pid in back.group.pids()? {
            let _ = drop_untouched(pid, &sets);
        }
    }
    sets.record(looks);
    sets.save(&back.sets)?;
    Ok(sets)
}
