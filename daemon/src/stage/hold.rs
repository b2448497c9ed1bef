//! After a failure: not at once again, and each time later.

use std::time::Duration;

use super::Refusal;

const FIRST: Duration = Duration::from_mins(1);
const LONGEST: Duration = Duration::from_hours(1);

/// Waits of 1, 2, 4 … minutes, at most an hour. A success or new settings begin anew.
#[derive(Clone, Debug, Default)]
pub(super) struct Hold {
    pub held: Option<Held>,
    last_wait: Option<Duration>,
}

#[derive(Clone, Debug)]
pub(super) struct Held {
    pub refusal: Refusal,
    pub until: Duration,
}

impl Hold {
    pub fn after(&mut self, now: Duration, refusal: Refusal) {
        let wait = self.last_wait.map_or(FIRST, |last| (last * 2).min(LONGEST));
        self.last_wait = Some(wait);
        self.held = Some(Held { refusal, until: now + wait });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_an_hour() {
        let mut hold = Hold::default();
        let waits: Vec<u64> = (0..9)
            .map(|_| {
                hold.after(Duration::ZERO, Refusal::Gone);
                hold.held.as_ref().unwrap().until.as_secs() / 60
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }
}
