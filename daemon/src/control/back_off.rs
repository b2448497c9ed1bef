//! How long to wait before the next try: longer each time, and never all nodes at once.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_mins(1);

#[derive(Debug, Default)]
pub struct BackOff {
    failures: u32,
}

impl BackOff {
    /// It worked: the next failure is the first again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Between half of the step and the whole of it.
    pub fn next(&mut self) -> Duration {
        let step = SHORTEST.saturating_mul(1 << self.failures.min(6)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        // A new RandomState has keys of its own, from the system's random numbers.
        let random = RandomState::new().hash_one(self.failures) as f64 / u64::MAX as f64;
        step.mul_f64(0.5 + random / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_minute_and_differ() {
        let mut back_off = BackOff::default();
        for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
            let step = Duration::from_secs(expected);
            let wait = back_off.next();
            assert!(wait >= step / 2 && wait <= step, "{wait:?} for {step:?}");
        }
        back_off.reset();
        assert!(back_off.next() <= SHORTEST);
        let many: std::collections::BTreeSet<_> = (0..20).map(|_| BackOff::default().next()).collect();
        assert!(many.len() > 10);
    }
}
