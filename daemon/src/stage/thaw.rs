//! Short thaws of a frozen server, which are no wakes: it answers queries and empties its accept queue.

use std::time::Duration;

use super::{AcceptQueue, Action, Machine, QUIET_DOOR};
use crate::limits::DozeBy;

impl Machine {
    /// A query came. A throttled server answers by itself.
    pub(super) fn query(&mut self) {
        let frozen = self.way.as_ref().is_some_and(|way| way.by == DozeBy::Freeze);
        // One that came between the freeze and our hearing of it is answered as well.
        self.queries_waiting |= frozen && self.asleep_or_entering();
    }

    /// `max(8, backlog / 8)` in a quiet moment, half of it at once (design §3): a full queue keeps players
    /// out, and at the wake the server would have to accept the dead ones first.
    pub(super) fn accept_queue(&mut self, queue: AcceptQueue) {
        let quiet = self.last_knock.is_none_or(|knock| self.now >= knock + QUIET_DOOR);
        if queue.waiting >= (queue.backlog / 2).max(1) {
            self.thaw();
        } else if quiet && queue.waiting >= (queue.backlog / 8).max(8) {
            self.queries_waiting = true;
        }
    }

    /// At once, or when `query_every` has gone by since the last one.
    pub(super) fn thaw_at(&self) -> Option<Duration> {
        if !self.queries_waiting || self.stage.by().is_none() || self.orders.thaw {
            return None;
        }
        Some(
            self.last_thaw
                .map_or(self.now, |last| last.saturating_add(self.limits.query_every).max(self.now)),
        )
    }

    pub(super) fn thaw(&mut self) {
        if !self.orders.thaw {
            self.queries_waiting = false;
            self.orders.thaw = true;
            self.last_thaw = Some(self.now);
            self.actions.push(Action::QueryThaw);
        }
    }
}
