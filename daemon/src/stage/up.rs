//! The way up, and whether the server stood it.

use super::{
    Action, Cause, DEATH_GRACE, Demotion, Kept, Machine, RETRY_FIRST, RETRY_LONGEST, Refusal, Running, Stage,
    machine::AfterWake,
};
use crate::limits::DozeBy;

impl Machine {
    /// From asleep, on the way there, or on paper. In any other stage there is nothing to wake.
    pub(super) fn begin_wake(&mut self, cause: Cause) {
        if self.stage == Stage::Waking {
            return;
        }
        let asleep = self.stage != Stage::Awake;
        if asleep && matches!(cause, Cause::Player { .. }) {
            self.wakes.count(self.now, self.limits.wakes_per_hour);
        }
        self.cause = Some(cause.clone());
        if self.paper {
            let after = self.now.saturating_sub(self.since);
            self.actions.push(Action::WouldWake { cause, from: self.stage, after });
            self.paper = false;
            self.last_wake = Some(self.now);
            self.enter(Stage::Awake);
            return;
        }
        self.answer(Err(Refusal::Interrupted { cause: cause.to_string() }));
        self.call_off();
        self.retry_wait = RETRY_FIRST;
        self.enter(Stage::Waking);
        self.order_wake();
    }

    pub(super) fn order_wake(&mut self) {
        self.retry_at = None;
        self.orders.wake = true;
        let cause = self.cause.clone().unwrap_or(Cause::Doubt);
        self.actions.push(Action::Wake { cause });
    }

    /// What is under way toward sleep is no longer wanted.
    fn call_off(&mut self) {
        self.stop_deep();
        self.nobody_waits();
        if let Some(doze) = &mut self.orders.doze {
            doze.cancelled = true;
        }
    }

    pub(super) fn woken(&mut self) {
        if self.paper || self.stage == Stage::Awake && !self.asleep_or_entering() {
            return;
        }
        if self.stage != Stage::Waking {
            // The door was faster than we: it wakes for players only.
            let cause = Cause::Player { from: None };
            if self.stage != Stage::Awake {
                self.wakes.count(self.now, self.limits.wakes_per_hour);
            }
            self.answer(Err(Refusal::Interrupted { cause: cause.to_string() }));
            self.cause = Some(cause);
        }
        self.call_off();
        self.awake_again();
        if self.running == Running::Gone {
            return;
        }
        self.actions.push(Action::RunAfterWake);
        // It was let go to end: that it does is no fault of the wake.
        if self.running == Running::Stopping {
            return;
        }
        if !self.orders.canary {
            self.orders.canary = true;
            self.actions.push(Action::StartCanary);
        }
        if let Some(by) = self.slept_by() {
            self.after_wake = Some(AfterWake { by, until: self.now + DEATH_GRACE });
        }
    }

    fn awake_again(&mut self) {
        self.forget_own_freeze();
        self.orders.wake = false;
        self.retry_at = None;
        self.wake_failed = None;
        self.last_wake = Some(self.now);
        self.settled_at = self.now;
        self.enter(Stage::Awake);
    }

    /// The last look may show our own freeze: not to be taken for somebody else's.
    pub(super) fn forget_own_freeze(&mut self) {
        if let Some(seen) = &mut self.seen {
            seen.frozen = false;
        }
    }

    pub(super) fn wake_failed(&mut self, reason: String) {
        if self.stage != Stage::Waking || !self.orders.wake {
            return;
        }
        if self.running == Running::Gone {
            return self.awake_again();
        }
        self.orders.wake = false;
        self.wake_failed = Some(reason);
        self.retry_at = Some(self.now + self.retry_wait);
        self.retry_wait = (self.retry_wait * 2).min(RETRY_LONGEST);
    }

    pub(super) fn wake_asked(&mut self, keep: Option<Kept>) {
        if let Some(kept) = keep {
            self.kept = Some(kept);
        }
        if self.asleep_or_entering() {
            return self.begin_wake(Cause::Operator);
        }
        self.answer(Err(Refusal::Interrupted { cause: Cause::Operator.to_string() }));
        if self.stage == Stage::Awake {
            // As after any wake: not asleep again in the next moment.
            self.last_wake = Some(self.now);
        }
    }

    pub(super) fn canary_failed(&mut self, reason: &str) {
        if std::mem::take(&mut self.orders.canary)
            && self.running != Running::Stopping
            && let Some(after_wake) = self.after_wake.take()
        {
            self.demote(after_wake.by, format!("it was not ready after a wake: {reason}"));
        }
    }

    pub(super) fn server_gone(&mut self) {
        if self.running == Running::Gone {
            return;
        }
        let by_the_wake = match (&self.after_wake, self.stage) {
            _ if self.running == Running::Stopping => None,
            (_, Stage::Waking) => self.slept_by(),
            // Frozen again nothing of its own can end it: somebody killed it.
            (_, stage) if stage.by() == Some(DozeBy::Freeze) => None,
            (Some(after_wake), _) if self.now < after_wake.until => Some(after_wake.by),
            _ => None,
        };
        self.after_wake = None;
        self.running = Running::Gone;
        if let Some(by) = by_the_wake {
            self.demote(by, "it died at or soon after a wake".into());
        }
        if self.asleep_or_entering() {
            self.begin_wake(Cause::ProcessChanged);
        }
        self.answer(Err(Refusal::Gone));
    }

    pub(super) fn server_started(&mut self, at: std::time::Duration) {
        // A restart by systemd or the kubelet may be faster than our look: the old process died all the same.
        self.server_gone();
        self.running = Running::Yes;
        self.started_at = at;
        self.doze_hold = super::hold::Hold::default();
    }

    fn slept_by(&self) -> Option<DozeBy> {
        self.way.as_ref().map(|way| way.by)
    }

    fn demote(&mut self, by: DozeBy, reason: String) {
        let demotion = Demotion::after(by, self.demotion.as_ref(), reason, self.watchdog_cure.as_deref());
        self.demotion = Some(demotion.clone());
        self.actions.push(Action::Demote(demotion));
    }
}
