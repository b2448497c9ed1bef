//! Wakes by players within the last hour.

use std::{collections::VecDeque, time::Duration};

const HOUR: Duration = Duration::from_hours(1);

/// A sliding hour. A spent budget keeps the server awake; it never refuses a wake (design §3).
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct WakeBudget {
    /// Oldest first; only the newest `per_hour` can matter, so no more are held.
    wakes: VecDeque<Duration>,
}

impl WakeBudget {
    pub fn count(&mut self, now: Duration, per_hour: u32) {
        self.wakes.push_back(now);
        while self.wakes.len() > per_hour.max(1) as usize {
            self.wakes.pop_front();
        }
    }

    /// When a further wake would be within the budget again; `None` = it is now. A budget of zero never is.
    pub fn spent_until(&self, now: Duration, per_hour: u32) -> Option<Duration> {
        let surplus = self.wakes.len().checked_sub(per_hour as usize)?;
        match self.wakes.get(surplus) {
            _ if per_hour == 0 => Some(Duration::MAX),
            Some(oldest) => Some(oldest.saturating_add(HOUR)).filter(|until| *until > now),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: u64) -> Duration {
        Duration::from_mins(minutes)
    }

    #[test]
    fn the_hour_slides() {
        let mut budget = WakeBudget::default();
        assert_eq!(budget.spent_until(at(0), 2), None);
        budget.count(at(0), 2);
        assert_eq!(budget.spent_until(at(0), 2), None);
        budget.count(at(30), 2);
        assert_eq!(budget.spent_until(at(31), 2), Some(at(60)));
        assert_eq!(budget.spent_until(at(60), 2), None);
        budget.count(at(61), 2);
        assert_eq!(budget.spent_until(at(61), 2), Some(at(90)));
        assert_eq!(budget.spent_until(at(61), 1), Some(at(121)));
        assert_eq!(budget.spent_until(at(61), 0), Some(Duration::MAX));
        assert_eq!(budget.spent_until(at(61), 3), None);
    }
}
