//! A deep sleeper's memory on its way back, from the very moment of the wake: threads of their own wait for it, since
//! whoever is told of a wake hears of it when the server runs already.

use std::{
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::mpsc::UnboundedSender;

use super::{Report, Sleeper};
use crate::{
    limits::BringBack,
    memory::{
        Cancel,
        group::Group,
        prefetch::{Beside, Prefetched, Progress, drop_untouched, prefetch},
        refill,
        working_set::{Looks, Wake, WorkingSets},
    },
};

/// Servers whose memory comes back at the same time. The device is the limit: more share it and are later all.
const AT_ONCE: usize = 2;
/// The longest that a server stays frozen for its memory; then it runs, and the rest comes beside.
const BEFORE_AT_MOST: Duration = Duration::from_secs(1);
/// When a woken server is looked at: what it needed first is brought first the next time.
pub(super) const LOOKS: [Duration; 8] = [
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1600),
    Duration::from_secs(5),
];

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
}

#[derive(Default)]
struct Waiting {
    jobs: Mutex<Vec<Job>>,
    came: Condvar,
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
                    job.look_on_beside();
                    let done = job.carry_out(&Cancel::default(), Beside::Server);
                    let _ = reports.send(Report::BroughtBack { slot: job.slot, done: Arc::new(done) });
                }
            })?;
        }
        Ok(Self(waiting))
    }

    fn give(&self, job: Job) {
        self.0.jobs.lock().unwrap_or_else(PoisonError::into_inner).push(job);
        self.0.came.notify_one();
    }
}

impl Waiting {
    /// Waits for the job with the least to do.
    fn next(&self) -> Job {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let least = jobs.iter().enumerate().min_by_key(|(_, job)| job.back.bytes).map(|(at, _)| at);
            match least {
                Some(at) => return jobs.swap_remove(at),
                None => jobs = self.came.wait(jobs).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl Job {
    /// Watches what it touches, and then brings the rest if that is wanted: on a thread that lives for seconds.
    fn look_on_beside(&self) {
        let (name, back, woken) = (Arc::clone(&self.name), self.back.clone(), self.woken);
        let look = move || {
            if let Err(error) = look_on(&back, woken) {
                tracing::debug!(server = %name, %error, "a working set was not recorded");
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

    fn carry_out(&self, cancel: &Cancel, beside: Beside) -> Prefetched {
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
        *self.back.lock().unwrap_or_else(PoisonError::into_inner) = Some(back);
    }

    /// Its memory comes back while it starts to run. Called once it is certain that it will.
    pub(super) fn bring_back(&self) {
        let Some(back) = self.back.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let name = Arc::clone(&self.name);
        self.node.bringer.give(Job { slot: self.slot, name, back, woken: Instant::now() });
    }

    /// Its memory must be there before it runs.
    pub(super) fn wants_memory_first(&self) -> bool {
        let back = self.back.lock().unwrap_or_else(PoisonError::into_inner);
        back.as_ref().is_some_and(|back| back.how == BringBack::Before)
    }

    /// Brings the memory back now, if it must be there before the server runs. Blocks, within bounds.
    pub(super) fn bring_back_first(&self) {
        let back = self.back.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(back) = back.filter(|back| back.how == BringBack::Before) else { return };
        let woken = Instant::now();
        let job = Job { slot: self.slot, name: Arc::clone(&self.name), back, woken };
        let done = job.carry_out(&Cancel::at(woken + BEFORE_AT_MOST), Beside::Nobody);
        tracing::debug!(server = %self.name, ?done, "brought back before the thaw");
        // What was not done in time comes beside.
        self.run_first();
    }

    /// It runs first, and its memory comes beside.
    pub(super) fn run_first(&self) {
        if let Some(back) = self.back.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            back.how = BringBack::Beside;
        }
    }
}

/// Records what a woken server touches; of a mapped wake what was not brought back.
fn look_on(back: &Back, woken: Instant) -> crate::memory::Result<()> {
    let wake = WorkingSets::load(&back.sets)?.next_wake();
    let mut looks = Looks::new(wake);
    for (number, after) in LOOKS.iter().enumerate() {
        std::thread::sleep((woken + *after).saturating_duration_since(Instant::now()));
        for pid in back.group.pids()? {
            // One that ended meanwhile has nothing to tell.
            let _ = looks.look(pid, number);
        }
    }
    let mut sets = WorkingSets::load(&back.sets)?;
    if wake == Wake::Learning {
        for pid in back.group.pids()? {
            let _ = drop_untouched(pid, &sets);
        }
    }
    sets.record(looks);
    sets.save(&back.sets)
}
