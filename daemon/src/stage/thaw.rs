//! Short thaws of a frozen server, which are no wakes: it answers queries and empties its accept queue.

use std::{ops::RangeInclusive, time::Duration};

use super::{AcceptQueue, Action, Machine, QUIET_DOOR};
use crate::limits::DozeBy;

/// Connections in the accept queue that a server is thawed for in a quiet moment, by its backlog.
const FEW: RangeInclusive<u32> = 8..=16;

impl Machine {
    /// A query came. A throttled server answers by itself.
    pub(super) fn query(&mut self) {
        let frozen = self.way.as_ref().is_some_and(|way| way.by == DozeBy::Freeze);
        // One that came between the freeze and our hearing of it is answered as well.
        self.queries_waiting |= frozen && self.asleep_or_entering();
    }

    /// Half of the backlog is emptied at once: a full queue keeps players out. So are [`FEW`] in the next quiet moment
    /// (design §3 has an eighth of the backlog): at the wake the server accepts the dead ones before the player behind
    /// them (docs/decisions/0028).
    pub(super) fn accept_queue(&mut self, queue: AcceptQueue) {
        if queue.waiting >= (queue.backlog / 2).max(1) {
            self.thaw();
        } else {
            self.connections_waiting = queue.waiting >= (queue.backlog / 8).clamp(*FEW.start(), *FEW.end());
        }
    }

    /// At once, or when `query_every` has gone by since the last one; for connections alone not before it is quiet.
    pub(super) fn thaw_at(&self) -> Option<Duration> {
        if self.stage.by().is_none() || self.orders.thaw {
            return None;
        }
        let quiet = self.last_knock.map_or(self.now, |knock| knock.saturating_add(QUIET_DOOR));
        let wanted = match (self.queries_waiting, self.connections_waiting) {
            (true, _) => self.now,
            (false, true) => quiet,
            (false, false) => return None,
        };
        let allowed = self.last_thaw.map_or(self.now, |last| last.saturating_add(self.limits.query_every));
        Some(wanted.max(allowed).max(self.now))
    }

    /// No thaw is wanted any more.
    pub(super) fn nobody_waits(&mut self) {
        self.queries_waiting = false;
        self.connections_waiting = false;
    }

    pub(super) fn thaw(&mut self) {
        if !self.orders.thaw {
            self.nobody_waits();
            self.orders.thaw = true;
            self.last_thaw = Some(self.now);
            self.actions.push(Action::QueryThaw);
        }
    }
}
