//! The short thaw: the server answers its queries itself and empties its accept queue, and freezes again.
//! It is no wake; a player who comes meanwhile makes it one.

use std::{
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use dormouse_abi::gate::{PARK, SIGNAL};

use super::{DozeAborted, Sleeper, WakeError, Ways, Woken};
use crate::{act::freezer::DEFAULT_TIMEOUT, door::monotonic_ns, failpoint, limits::DozeBy};

/// How often the thaw may be repeated while something still waits, before the server counts as busy.
const ROUNDS: u32 = 3;
/// How often the server is looked at while it runs.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How a short thaw ended.
#[derive(Debug)]
pub enum Thawed {
    /// Frozen again; so many packets were given to the server.
    Again { replayed: u32 },
    /// Somebody wanted in, or it did not come to rest: it is awake now.
    Woken(Option<Woken>, &'static str),
    /// It was not frozen in the first place.
    NotFrozen,
}

impl Sleeper {
    /// Lets the frozen server run for at most `query_thaw`.
    ///
    /// # Errors
    /// The cgroup can't be written.
    pub fn query_thaw(&self) -> Result<Thawed, WakeError> {
        let mut ways = self.ways();
        if ways.asleep.as_ref().is_none_or(|asleep| asleep.by != DozeBy::Freeze) {
            return Ok(Thawed::NotFrozen);
        }
        let longest = self.manners().query_thaw;
        let mut replayed = 0;
        for _ in 0..ROUNDS {
            let started_ns = monotonic_ns();
            ways.freezer.thaw()?;
            failpoint::at("query-thawed");
            self.node.arrays.state(self.slot).query_ns.store(0, SeqCst);
            replayed += self.drain(SIGNAL);
            self.let_run(&mut ways, longest);
            if self.is_wanted() {
                return Ok(Thawed::Woken(self.wake_holding(&mut ways, None)?, "a player came"));
            }
            ways.freezer.freeze(DEFAULT_TIMEOUT)?;
            failpoint::at("query-frozen");
            match self.look_again(&mut ways, started_ns) {
                Ok(older_connections) => {
                    if let Some(asleep) = &mut ways.asleep {
                        asleep.older_connections = older_connections;
                    }
                    self.node.arrays.set_gate(self.slot, PARK);
                    if self.is_wanted() {
                        return Ok(Thawed::Woken(self.wake_holding(&mut ways, None)?, "a player came"));
                    }
                    return Ok(Thawed::Again { replayed });
                }
                Err(DozeAborted::Waiting { .. }) => {}
                Err(_) => return Ok(Thawed::Woken(self.wake_holding(&mut ways, None)?, "a player came")),
            }
        }
        Ok(Thawed::Woken(self.wake_holding(&mut ways, None)?, "it did not come to rest"))
    }

    fn is_wanted(&self) -> bool {
        self.wanted.swap(false, SeqCst) || self.node.arrays.state(self.slot).wake_ns.load(SeqCst) != 0
    }

    /// Until nothing waits in its sockets any more, or time is up.
    fn let_run(&self, ways: &mut Ways, longest: Duration) {
        let until = Instant::now() + longest;
        loop {
            std::thread::sleep(LOOK_EVERY);
            let rested = self.look_again(ways, u64::MAX).is_ok();
            if rested && Instant::now() + longest / 2 > until
                || Instant::now() > until
                || self.wanted.load(SeqCst)
            {
                return;
            }
        }
    }
}
