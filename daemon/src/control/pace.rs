//! When to report: at once when something changed, but not more often than once a second; else every ten seconds.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// The longest time between two reports.
const LONGEST: Duration = Duration::from_secs(10);
/// The shortest: where everything changes at once it is told together.
const SHORTEST: Duration = Duration::from_secs(1);
/// So long an answer waits for the report before it.
const PATIENCE: Duration = Duration::from_secs(3);

/// One session's reports in time.
pub struct Pace {
    reported: Option<Instant>,
    due: Instant,
}

impl Pace {
    /// The first is due at once.
    pub fn new() -> Self {
        Self { reported: None, due: Instant::now() }
    }

    pub const fn due(&self) -> Instant {
        self.due
    }

    pub fn reported(&mut self) {
        let now = Instant::now();
        *self = Self { reported: Some(now), due: now + LONGEST };
    }

    /// Something changed.
    pub fn soon(&mut self) {
        if let Some(reported) = self.reported {
            self.due = self.due.min(reported + SHORTEST);
        }
    }
}

/// Reports, for those who wait for one.
#[derive(Default)]
pub struct Reports {
    wanted: Notify,
    begun: AtomicU64,
    done: watch::Sender<u64>,
}

impl Reports {
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// A report is begun: its number.
    pub fn begin(&self) -> u64 {
        self.begun.fetch_add(1, SeqCst) + 1
    }

    pub fn end(&self, number: u64) {
        self.done.send_replace(number);
    }

    /// Until all that is true now was reported; not for long if nobody listens.
    pub async fn make(&self) {
        let mut done = self.done.subscribe();
        let next = self.begun.load(SeqCst) + 1;
        self.wanted.notify_one();
        let _ = tokio::time::timeout(PATIENCE, done.wait_for(|number| *number >= next)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_change_is_told_within_a_second_and_many_together() {
        let mut pace = Pace::new();
        let start = Instant::now();
        pace.soon();
        assert_eq!(pace.due(), start, "the first at once");
        pace.reported();
        assert_eq!(pace.due(), start + LONGEST);
        for _ in 0..100 {
            pace.soon();
        }
        assert_eq!(pace.due(), start + SHORTEST);
        tokio::time::advance(Duration::from_secs(5)).await;
        pace.reported();
        assert_eq!(pace.due(), Instant::now() + LONGEST);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_report_waits_for_one_that_began_after() {
        let reports = Arc::new(Reports::default());
        let under_way = reports.begin();
        let waiter = Arc::clone(&reports);
        let waits = tokio::spawn(async move { waiter.make().await });
        reports.wanted().await;
        reports.end(under_way);
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        let next = reports.begin();
        reports.end(next);
        waits.await.unwrap();
        // Nobody reports: it goes on.
        reports.make().await;
    }
}
