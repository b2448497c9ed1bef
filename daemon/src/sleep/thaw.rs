//! The short thaw: the server answers its queries itself and empties its accept queue, and freezes again.
//! It is no wake; a player who comes meanwhile makes it one.

use std::{
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use dormouse_abi::gate::{PARK, SIGNAL};

use super::{DozeAborted, Sleeper, WakeError, Woken};
use crate::{act::freezer::DEFAULT_TIMEOUT, door::monotonic_ns, failpoint, limits::DozeBy};

/// How often the thaw may be repeated at once while something still waits. What waits then is no player (whose
/// packet would have set the flag), only many: a scan fills accept queues faster than a server empties them.
const ROUNDS: u32 = 3;
/// How often the server is looked at while it runs.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A server that has not answered after `query_thaw` (its memory comes from disk) gets this many times as
/// long: an answer that is begun and not sent is a ping lost.
const UNANSWERED: u32 = 10;

/// How a short thaw ended.
#[derive(Debug)]
pub enum Thawed {
    /// Frozen again; so many packets were given to the server. Unfinished: connections or queries still wait
    /// in its sockets for the next short thaw.
    Again { replayed: u32, unfinished: bool },
    /// Somebody wanted in: it is awake now.
    Woken(Option<Woken>, &'static str),
    /// It was not frozen in the first place.
    NotFrozen,
}

impl Sleeper {
    /// Lets the frozen server run for `query_thaw`, or until it has answered, whichever is later; bounded.
    ///
    /// # Errors
    /// The cgroup can't be written.
    pub fn query_thaw(&self) -> Result<Thawed, WakeError> {
        self.short_thaw(self.manners().query_thaw, &mut |_| {})
    }

    /// Lets the frozen server run for half of `longest` at least. `beside` is called again and again with the time that
    /// it has run.
    pub(super) fn short_thaw(
        &self,
        longest: Duration,
        beside: &mut dyn FnMut(Duration),
    ) -> Result<Thawed, WakeError> {
        let mut ways = self.ways();
        if ways.asleep.as_ref().is_none_or(|asleep| asleep.by != DozeBy::Freeze) {
            return Ok(Thawed::NotFrozen);
        }
        let mut replayed = 0;
        for round in 1.. {
            let started_ns = monotonic_ns();
            self.await_answer(started_ns);
            ways.freezer.thaw()?;
            failpoint::at("query-thawed");
            self.node.arrays.state(self.slot).query_ns.store(0, SeqCst);
            let given = self.drain(SIGNAL);
            replayed += given;
            failpoint::at("query-drained");
            self.let_run(longest, given > 0, beside);
            self.stop_awaiting();
            if self.is_wanted() {
                break;
            }
            ways.freezer.freeze(DEFAULT_TIMEOUT)?;
            failpoint::at("query-frozen");
            let unfinished = match self.look_again(started_ns) {
                Ok(older_connections) => {
                    if let Some(asleep) = &mut ways.asleep {
                        asleep.older_connections = older_connections;
                    }
                    false
                }
                Err(DozeAborted::Waiting { .. }) if round < ROUNDS => continue,
                Err(DozeAborted::Waiting { .. }) => true,
                Err(_) => break,
            };
            self.node.arrays.set_gate(self.slot, PARK);
            failpoint::at("query-parked");
            if self.is_wanted() {
                break;
            }
            return Ok(Thawed::Again { replayed, unfinished });
        }
        Ok(Thawed::Woken(self.wake_holding(&mut ways, None)?, "a player came"))
    }

    fn is_wanted(&self) -> bool {
        self.wanted.swap(false, SeqCst) || self.node.arrays.state(self.slot).wake_ns.load(SeqCst) != 0
    }

    /// Until it has answered what it was given and nothing waits in its sockets any more, or time is up.
    fn let_run(&self, longest: Duration, asked: bool, beside: &mut dyn FnMut(Duration)) {
        let started = Instant::now();
        let state = self.node.arrays.state(self.slot);
        loop {
            std::thread::sleep(LOOK_EVERY);
            let ran = started.elapsed();
            beside(ran);
            let answered = !asked || state.answer_ns.load(SeqCst) != 0;
            let rested = self.look_again(u64::MAX).is_ok();
            let wanted = self.wanted.load(SeqCst) || state.wake_ns.load(SeqCst) != 0;
            if wanted
                || answered && (rested && ran > longest / 2 || ran > longest)
                || ran > longest * UNANSWERED
            {
                return;
            }
        }
    }
}
