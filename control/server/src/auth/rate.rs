//! How often one caller may ask: a bucket of tokens each, refilled with time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Buckets that are kept; the full ones are forgotten first, they say nothing.
const MOST: usize = 16_384;

#[derive(Debug)]
pub struct Rate {
    per_second: f64,
    burst: f64,
    buckets: Mutex<HashMap<String, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Rate {
    /// Two seconds' worth may come at once.
    pub fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, burst: per_second * 2.0, buckets: Mutex::default() }
    }

    /// Takes one; `Err`: how long to wait for it.
    pub fn take(&self, who: &str, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(who) {
            return self.take_from(bucket, now);
        }
        if buckets.len() >= MOST {
            buckets.retain(|_, bucket| self.level(bucket, now) < self.burst);
            // Full of callers that are all at their limit: an attack; who is new waits a second.
            if buckets.len() >= MOST {
                return Err(Duration::from_secs(1));
            }
        }
        let mut bucket = Bucket { tokens: self.burst, at: now };
        let taken = self.take_from(&mut bucket, now);
        buckets.insert(who.to_owned(), bucket);
        taken
    }

    fn level(&self, bucket: &Bucket, now: Instant) -> f64 {
        let gained = now.saturating_duration_since(bucket.at).as_secs_f64() * self.per_second;
        (bucket.tokens + gained).min(self.burst)
    }

    fn take_from(&self, bucket: &mut Bucket, now: Instant) -> Result<(), Duration> {
        *bucket = Bucket { tokens: self.level(bucket, now), at: now };
        if bucket.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.tokens) / self.per_second));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_s_haste_is_nobody_else_s_wait() {
        let rate = Rate::new(10);
        let now = Instant::now();
        let taken = (0..100).filter(|_| rate.take("anna", now).is_ok()).count();
        assert_eq!(taken, 20);
        assert!(rate.take("bert", now).is_ok());
        let wait = rate.take("anna", now).unwrap_err();
        assert!(rate.take("anna", now + wait).is_ok());
        let later = (0..100).filter(|_| rate.take("anna", now + Duration::from_mins(1)).is_ok()).count();
        assert_eq!(later, 20);
    }
}
