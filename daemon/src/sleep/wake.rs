//! Out of the doze: let it run, give back what was parked in order, open the gate when nothing is under way.

use std::{
    sync::{TryLockError, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use dormouse_abi::{
    gate::{self, DRAINING, OPEN, SIGNAL},
    node,
};

use super::{Sleeper, Ways, enter::grace_period};
use crate::{
    act::{freezer::FreezeError, throttle},
    door::monotonic_ns,
    failpoint,
    limits::DozeBy,
};

/// How long replaying may hold the gate; then it opens whatever is under way (design §3: bounded, then
/// passes).
const DRAIN_WITHIN: Duration = Duration::from_millis(50);
/// How many packets a frozen server is given before it is let go: it finds the first at its first look, and the
/// others come while it starts to run.
const BEFORE_THE_THAW: usize = 1;

/// A server was woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Woken {
    pub by: DozeBy,
    /// When the door saw the packet that woke it; `None` = nobody knocked. `CLOCK_MONOTONIC`, nanoseconds,
    /// as the other times.
    pub knocked_ns: Option<u64>,
    pub decided_ns: u64,
    pub thawed_ns: u64,
    pub opened_ns: u64,
    /// Packets given back.
    pub replayed: u32,
    pub slept_since_ns: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum WakeError {
    #[error(transparent)]
    Freezer(#[from] FreezeError),
    #[error(transparent)]
    Throttle(#[from] throttle::ThrottleError),
}

impl Sleeper {
    /// Wakes the server, or leaves a note for whoever is moving it now. `Ok(None)`: it was awake, or the
    /// note was left.
    ///
    /// # Errors
    /// The cgroup can't be written; the gate is open all the same, and the guard will try.
    pub fn wake(&self, knocked_ns: Option<u64>) -> Result<Option<Woken>, WakeError> {
        self.stop_deep();
        self.wanted.store(true, SeqCst);
        let mut ways = match self.ways.try_lock() {
            Ok(ways) => ways,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(None),
        };
        self.wanted.store(false, SeqCst);
        self.wake_holding(&mut ways, knocked_ns)
    }

    /// [`Sleeper::wake`] for those who may wait: whoever moves the server now is waited for.
    ///
    /// # Errors
    /// As [`Sleeper::wake`].
    pub fn wake_waiting(&self) -> Result<Option<Woken>, WakeError> {
        self.stop_deep();
        let _turn = self.await_turn();
        self.wanted.store(true, SeqCst);
        let mut ways = self.ways();
        self.wanted.store(false, SeqCst);
        self.wake_holding(&mut ways, None)
    }

    /// [`Sleeper::wake`] for those who hold the lock.
    pub(super) fn wake_holding(
        &self,
        ways: &mut Ways,
        knocked_ns: Option<u64>,
    ) -> Result<Option<Woken>, WakeError> {
        let decided_ns = monotonic_ns();
        self.stop_deep();
        let Some(asleep) = &ways.asleep else {
            // An earlier daemon ended between shutting the gate and the freeze.
            if gate::state(self.node.arrays.gate(self.slot)) != OPEN {
                self.drain(OPEN);
            }
            return Ok(None);
        };
        let by = asleep.by;
        let knocked_ns =
            knocked_ns.or_else(|| self.node.arrays.state(self.slot).take_wake().map(|(at, _)| at));
        failpoint::at("wake-begun");
        self.await_answer(knocked_ns.unwrap_or(decided_ns));
        self.bring_back();
        let mut replayed = self.replay_queue(BEFORE_THE_THAW);
        failpoint::at("wake-given");
        let ran = match (by, asleep.cpu_max) {
            (DozeBy::Throttle, Some(old)) => {
                throttle::write(ways.freezer.cgroup(), old).map_err(WakeError::from)
            }
            _ => ways.freezer.thaw().map_err(WakeError::from),
        };
        let thawed_ns = monotonic_ns();
        failpoint::at("wake-thawed");
        if let Err(error) = ran {
            // A cgroup that is gone has nobody to wake; anything else leaves the sleeper for the next try,
            // with a door that passes.
            self.node.arrays.set_gate(self.slot, SIGNAL);
            return Err(error);
        }
        self.replayed.fetch_add(u64::from(replayed), SeqCst);
        replayed += self.drain(OPEN);
        let opened_ns = monotonic_ns();
        failpoint::at("wake-open");
        self.asleep.store(false, SeqCst);
        let state = self.node.arrays.state(self.slot);
        state.wake_ns.store(0, SeqCst);
        state.query_ns.store(0, SeqCst);
        let Some(asleep) = ways.asleep.take() else { return Ok(None) };
        failpoint::at("wake-done");
        self.node.clerk.done(&ways.log, asleep.undo);
        Ok(Some(Woken {
            by,
            knocked_ns,
            decided_ns,
            thawed_ns,
            opened_ns,
            replayed,
            slept_since_ns: asleep.since_ns,
        }))
    }

    /// Asks the door for the time of the server's next answer.
    pub(super) fn await_answer(&self, since_ns: u64) {
        let state = self.node.arrays.state(self.slot);
        // One that was seen and not yet collected is still counted.
        let counted = state.answer_ns.swap(0, SeqCst) != 0;
        if state.await_answer_ns.swap(since_ns, SeqCst) == 0 && !counted {
            self.node.arrays.node(node::AWAITING_ANSWER).fetch_add(1, SeqCst);
        }
    }

    /// Nobody waits for the answer any more.
    pub(super) fn stop_awaiting(&self) {
        let state = self.node.arrays.state(self.slot);
        if state.await_answer_ns.swap(0, SeqCst) != 0 || state.answer_ns.swap(0, SeqCst) != 0 {
            self.node.arrays.answer_came();
        }
    }

    /// Replays what is queued, and what comes meanwhile, in order; then the gate is `after`. Records that
    /// the program has counted and the watch has not read yet are waited for, within bounds.
    pub(super) fn drain(&self, after: u32) -> u32 {
        let arrays = &self.node.arrays;
        arrays.set_gate(self.slot, DRAINING);
        failpoint::at("wake-draining");
        let until = Instant::now() + DRAIN_WITHIN;
        let mut replayed = 0;
        let mut reports = vec![];
        loop {
            replayed += self.replay_queue(usize::MAX);
            failpoint::at("wake-replayed");
            if arrays.open_if_drained(self.slot) {
                break;
            }
            if Instant::now() > until {
                // A daemon that was killed took records along; no one will end them.
                arrays.set_gate(self.slot, after);
                grace_period();
                reports.extend(self.node.read_records());
                replayed += self.replay_queue(usize::MAX);
                let lost = arrays.write_off(self.slot);
                tracing::warn!(server = %self.name, lost, "packets were still under way when the gate opened");
                break;
            }
            reports.extend(self.node.read_records());
        }
        arrays.set_gate(self.slot, after);
        replayed += self.replay_queue(usize::MAX);
        self.replayed.fetch_add(u64::from(replayed), SeqCst);
        if !reports.is_empty() {
            self.node.tell(reports);
            // Who was enlisted meanwhile; the watch may be another thread.
            self.node.kick();
        }
        replayed
    }

    pub(super) fn replay_queue(&self, most: usize) -> u32 {
        let mut replayed = 0;
        for _ in 0..most {
            let Some(mut parked) = self.queue().pop() else { break };
            match self.node.replayer.replay(&mut parked) {
                Ok(()) => replayed += 1,
                Err(error) => {
                    tracing::warn!(server = %self.name, %error, "a parked packet is left to its sender to send again");
                    self.expired.fetch_add(1, SeqCst);
                }
            }
            self.node.arrays.end_record(self.slot);
        }
        replayed
    }
}
