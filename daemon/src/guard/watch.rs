//! Judges the daemon by its heartbeat. Pure: time and readings in, verdict out.

use std::time::Duration;

/// What the guard sees of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// `CLOCK_MONOTONIC` of the last heartbeat, nanoseconds, 0 = none yet; how old it may be, and how long it may
    /// stay so.
    Heartbeat { ns: u64, stale_after: Option<Duration>, guard_limit: Option<Duration> },
    /// The pins are missing or are not what they should be.
    Unreadable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The daemon works.
    Alive,
    /// The pins cannot be read, but not for long enough to act.
    Waiting,
    /// The door passes everything and flags who is knocked on: wake those.
    Stale,
    /// Nobody else will wake them: wake all.
    Abandoned,
}

#[derive(Clone, Copy, Debug)]
pub struct Watch {
    stale_after: Duration,
    guard_limit: Duration,
    /// When the trouble was first seen, nanoseconds.
    trouble_since: Option<u64>,
    /// When it was last looked at, if it was alive then.
    alive_at: Option<u64>,
    /// Until then a heartbeat that went stale while the guard itself was held up is waited for.
    held_up_until: u64,
}

impl Watch {
    pub fn new(stale_after: Duration, guard_limit: Duration) -> Self {
        Self { stale_after, guard_limit, trouble_since: None, alive_at: None, held_up_until: 0 }
    }

    /// `now` must be read after `reading`: a heartbeat from the future is garbage, and stale. A machine that stood still
    /// (a paused VM, a host that gave its time to others) held up the daemon as well as the guard: for half of
    /// `stale_after` more the heartbeat may come; once, for a guard that is always held up must act too.
    pub fn judge(&mut self, now: u64, reading: Reading) -> Verdict {
        let age = |since: u64| Duration::from_nanos(now.saturating_sub(since));
        let patience = self.stale_after / 2;
        if self.alive_at.take().is_some_and(|last| age(last) > patience) {
            self.held_up_until = now.saturating_add(u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX));
        }
        match reading {
            Reading::Heartbeat { ns, stale_after, guard_limit } => {
                let known = ns != 0 && ns <= now;
                if known && age(ns) <= stale_after.unwrap_or(self.stale_after) {
                    self.trouble_since = None;
                    self.alive_at = Some(now);
                    return Verdict::Alive;
                }
                if known && self.trouble_since.is_none() && now < self.held_up_until {
                    return Verdict::Waiting;
                }
                let seen = *self.trouble_since.get_or_insert(now);
                // The heartbeat itself knows best since when, also over a restart of the guard.
                let since = if known { ns } else { seen };
                if age(since) >= guard_limit.unwrap_or(self.guard_limit) {
                    Verdict::Abandoned
                } else {
                    Verdict::Stale
                }
            }
            Reading::Unreadable => {
                let seen = *self.trouble_since.get_or_insert(now);
                if age(seen) >= self.stale_after { Verdict::Abandoned } else { Verdict::Waiting }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const START: u64 = 1000 * SECOND;

    fn watch() -> Watch {
        Watch::new(Duration::from_secs(2), Duration::from_mins(10))
    }

    fn beat(ns: u64) -> Reading {
        Reading::Heartbeat { ns, stale_after: None, guard_limit: None }
    }

    #[test]
    fn a_heartbeat_goes_stale_and_then_is_given_up() {
        let mut watch = watch();
        assert_eq!(watch.judge(START + 2 * SECOND, beat(START)), Verdict::Alive);
        assert_eq!(watch.judge(START + 2 * SECOND + 1, beat(START)), Verdict::Stale);
        assert_eq!(watch.judge(START + 600 * SECOND - 1, beat(START)), Verdict::Stale);
        assert_eq!(watch.judge(START + 600 * SECOND, beat(START)), Verdict::Abandoned);
        assert_eq!(watch.judge(START + 601 * SECOND, beat(START + 600 * SECOND)), Verdict::Alive);
    }

    #[test]
    fn the_doors_own_limit_counts() {
        let reading =
            Reading::Heartbeat { ns: START, stale_after: Some(Duration::from_secs(5)), guard_limit: None };
        assert_eq!(watch().judge(START + 5 * SECOND, reading), Verdict::Alive);
        assert_eq!(watch().judge(START + 5 * SECOND + 1, reading), Verdict::Stale);
    }

    #[test]
    fn no_heartbeat_yet_counts_from_when_that_was_seen() {
        let mut watch = watch();
        assert_eq!(watch.judge(START, beat(0)), Verdict::Stale);
        assert_eq!(watch.judge(START + 599 * SECOND, beat(0)), Verdict::Stale);
        assert_eq!(watch.judge(START + 600 * SECOND, beat(0)), Verdict::Abandoned);
    }

    #[test]
    fn a_heartbeat_from_the_future_is_no_heartbeat() {
        assert_eq!(watch().judge(START, beat(u64::MAX)), Verdict::Stale);
    }

    #[test]
    fn a_guard_that_was_held_up_itself_waits_for_the_daemon() {
        let mut watch = watch();
        let held_up = START + 5 * SECOND;
        assert_eq!(watch.judge(START, beat(START)), Verdict::Alive);
        assert_eq!(watch.judge(held_up, beat(START)), Verdict::Waiting);
        assert_eq!(watch.judge(held_up + SECOND / 2, beat(START)), Verdict::Waiting);
        assert_eq!(watch.judge(held_up + SECOND / 2, beat(held_up)), Verdict::Alive, "it came");
        let mut again = watch;
        assert_eq!(again.judge(held_up + 8 * SECOND, beat(held_up)), Verdict::Waiting);
        assert_eq!(again.judge(held_up + 9 * SECOND, beat(held_up)), Verdict::Stale, "it did not");
        // Trouble that was there before is none of the pause, nor is a second one while it is waited for.
        assert_eq!(again.judge(held_up + 20 * SECOND, beat(held_up)), Verdict::Stale);
        assert_eq!(watch.judge(held_up + 8 * SECOND, beat(held_up)), Verdict::Waiting);
        assert_eq!(watch.judge(held_up + 11 * SECOND, beat(held_up)), Verdict::Stale);
    }

    #[test]
    fn unreadable_pins_are_waited_for_no_longer_than_a_heartbeat() {
        let mut watch = watch();
        assert_eq!(watch.judge(START, Reading::Unreadable), Verdict::Waiting);
        assert_eq!(watch.judge(START + 2 * SECOND, Reading::Unreadable), Verdict::Abandoned);
        assert_eq!(watch.judge(START + 3 * SECOND, beat(START + 3 * SECOND)), Verdict::Alive);
        assert_eq!(watch.judge(START + 4 * SECOND, Reading::Unreadable), Verdict::Waiting);
    }
}
