//! The guard's loop. It ends by a signal only, never by an error.

use std::{
    collections::HashSet,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        mman::{MlockAllFlags, mlockall},
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};

use super::{
    Paths, Pins, Sleeper, Timing,
    presence::Presence,
    sleepers,
    watch::{Reading, Verdict, Watch},
};
use crate::{door::monotonic_ns, failpoint};

/// Between two looks at the wake flags while the heartbeat is stale.
const FLAG_TICK: Duration = Duration::from_millis(20);
/// Between two looks at the heartbeat while it is fresh, at most.
const REST_TICK: Duration = Duration::from_millis(200);
/// Between two readings of the pins and the undo log while the heartbeat is stale.
const RELOAD: Duration = Duration::from_secs(1);

/// Guards until SIGTERM or SIGINT; with a stale heartbeat every sleeper is woken before the end.
pub fn run(paths: &Paths, timing: Timing) -> anyhow::Result<()> {
    let signals = block_signals().context("cannot block SIGTERM and SIGINT")?;
    protect_self();
    let _presence = Presence::announce(&paths.run_dir);
    let mut guard = Guard::new(paths, timing);
    tracing::info!(run_dir = %paths.run_dir.display(), pins = %paths.pins().display(), "guarding");
    loop {
        let pause = guard.step();
        if signalled(&signals, pause) {
            guard.leave();
            return Ok(());
        }
    }
}

struct Guard {
    run_dir: PathBuf,
    pin_dir: PathBuf,
    rest: Duration,
    watch: Watch,
    verdict: Verdict,
    pins: Option<Pins>,
    sleepers: Vec<Sleeper>,
    /// Names of those that were woken since the last reload: each is tried once a reload.
    woken: HashSet<String>,
    reloaded: Option<Instant>,
}

impl Guard {
    fn new(paths: &Paths, timing: Timing) -> Self {
        Self {
            run_dir: paths.run_dir.clone(),
            pin_dir: paths.pin_dir.clone(),
            rest: (timing.stale_after / 4).clamp(FLAG_TICK, REST_TICK),
            watch: Watch::new(timing.stale_after, timing.guard_limit),
            verdict: Verdict::Waiting,
            pins: None,
            sleepers: Vec::new(),
            woken: HashSet::new(),
            reloaded: None,
        }
    }

    /// Looks once, does what is needed, and says how long to wait.
    fn step(&mut self) -> Duration {
        self.judge();
        match self.verdict {
            Verdict::Alive => {
                self.reloaded = None;
                return self.rest;
            }
            Verdict::Waiting => return self.rest,
            Verdict::Stale | Verdict::Abandoned => {}
        }
        for sleeper in &self.sleepers {
            let knocked = self.verdict == Verdict::Abandoned
                || self.pins.as_ref().zip(sleeper.slot).is_none_or(|(pins, slot)| pins.is_knocked_on(slot));
            if knocked && !self.woken.contains(&sleeper.name) {
                failpoint::at("guard-wakes");
                sleeper.wake();
                self.woken.insert(sleeper.name.clone());
            }
        }
        if self.verdict == Verdict::Stale { FLAG_TICK } else { self.rest }
    }

    /// A mapping outlives its pin, so whatever is not alive is judged by the pins of now: a daemon that has
    /// made new maps must not be taken for dead.
    fn judge(&mut self) {
        let mut verdict = self.look();
        if verdict != Verdict::Alive && self.reloaded.is_none_or(|last| last.elapsed() >= RELOAD) {
            self.reload();
            verdict = self.look();
        }
        if verdict != self.verdict {
            match verdict {
                Verdict::Alive => tracing::info!("the daemon's heartbeat is fresh"),
                Verdict::Waiting => {}
                Verdict::Stale => tracing::warn!(
                    sleepers = self.sleepers.len(),
                    "the daemon's heartbeat is stale: waking whoever is knocked on"
                ),
                Verdict::Abandoned if self.sleepers.is_empty() => {}
                Verdict::Abandoned => {
                    tracing::warn!(sleepers = self.sleepers.len(), "no daemon to wake them: waking all");
                }
            }
            if verdict == Verdict::Stale {
                failpoint::at("guard-stale");
            }
            self.verdict = verdict;
            self.woken.clear();
        }
    }

    fn look(&mut self) -> Verdict {
        let reading = self.pins.as_ref().map_or(Reading::Unreadable, Pins::reading);
        self.watch.judge(monotonic_ns(), reading)
    }

    fn reload(&mut self) {
        self.reloaded = Some(Instant::now());
        self.woken.clear();
        self.pins = match Pins::open(&self.pin_dir) {
            Ok(pins) => Some(pins),
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "no pins");
                None
            }
        };
        self.sleepers = read_sleepers(&self.run_dir);
    }

    fn leave(&mut self) {
        self.reloaded = None;
        self.judge();
        if self.verdict == Verdict::Alive {
            tracing::info!("leaving; the daemon works");
            return;
        }
        self.sleepers = read_sleepers(&self.run_dir);
        tracing::warn!(sleepers = self.sleepers.len(), "leaving without a daemon: waking all");
        self.sleepers.iter().for_each(Sleeper::wake);
    }
}

fn read_sleepers(run_dir: &Path) -> Vec<Sleeper> {
    let (found, errors) = sleepers(run_dir).unwrap_or_else(|error| (Vec::new(), vec![error]));
    for error in errors {
        tracing::error!(error = &error as &dyn std::error::Error, "cannot read who sleeps");
    }
    found
}

/// Whoever is guarded must not wait for the guard's own pages, nor lose it first. Without the capabilities
/// it guards all the same.
fn protect_self() {
    if let Err(error) = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE) {
        tracing::warn!(%error, "cannot lock the guard's memory; give it CAP_IPC_LOCK");
    }
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "-999") {
        tracing::warn!(%error, "cannot protect the guard from the OOM killer; give it CAP_SYS_RESOURCE");
    }
}

fn block_signals() -> nix::Result<SignalFd> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// Waits, and says whether a signal came.
fn signalled(signals: &SignalFd, pause: Duration) -> bool {
    let timeout = PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    // A failed poll (EINTR) is a short wait; the signal is still there at the next.
    poll(&mut fds, timeout).is_ok_and(|ready| ready > 0)
}
