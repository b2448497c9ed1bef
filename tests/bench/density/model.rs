//! How many servers fit a budget, worked out instead of run: a day of players who come at random, by the hour's share.

/// A day's shares of the joins, by the hour, midnight first: nights are quiet, evenings are not. Invented, not measured;
/// printed with each result.
pub const HOURS: [f64; 24] = [
    3.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0,
    10.0, 9.0, 7.0, 5.0,
];

/// What the model is told. MiB and seconds.
#[derive(Clone, Copy, Debug)]
pub struct Inputs {
    pub budget_mib: f64,
    /// The daemon and its maps.
    pub daemon_mib: f64,
    /// A server's mean weight, awake and deep.
    pub awake_mib: f64,
    pub deep_mib: f64,
    pub joins_per_server_day: f64,
    /// How long a day is.
    pub day: f64,
    /// From a join until the server is deep again.
    pub awake_for: f64,
}

impl Inputs {
    /// Servers that fit if none ever sleeps.
    pub fn always_awake(&self) -> usize {
        (self.budget_mib / self.awake_mib) as usize
    }

    /// Servers that fit at every moment of the day, with one more awake that is being started.
    pub fn asleep(&self) -> usize {
        const ENOUGH: usize = 100_000;
        let fits = |servers: &usize| self.peak_mib(*servers) <= self.budget_mib;
        (1..ENOUGH).take_while(fits).last().unwrap_or(0)
    }

    fn peak_mib(&self, servers: usize) -> f64 {
        let awake = (self.most_awake(servers) + 1).min(servers) as f64;
        self.daemon_mib + servers as f64 * self.deep_mib + awake * (self.awake_mib - self.deep_mib)
    }

    /// The most servers that are awake at the same time, of a day like any other.
    fn most_awake(&self, servers: usize) -> usize {
        let mut until = vec![f64::NEG_INFINITY; servers];
        let mut most = 0;
        for (at, draw) in arrivals(self.joins_per_server_day * servers as f64, self.day) {
            until[(draw * servers as f64) as usize % servers] = at + self.awake_for;
            most = most.max(until.iter().filter(|until| **until > at).count());
        }
        most
    }
}

/// When players come, seconds from midnight, and a number in [0, 1) by which each chooses a server. `joins` a day on
/// average, exponential gaps at the hour's rate (a Poisson process); the same in every run.
pub fn arrivals(joins: f64, day: f64) -> Vec<(f64, f64)> {
    if joins <= 0.0 {
        return vec![];
    }
    let sum: f64 = HOURS.iter().sum();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut draw = || {
        // xorshift64* (Vigna, 2016).
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as f64 / f64::from(u32::MAX).next_up()
    };
    let hour = day / 24.0;
    let mut all = vec![];
    for (number, share) in HOURS.iter().enumerate() {
        let gap = hour / (joins * share / sum);
        // No memory: what is left of a gap at the full hour is as long as a new one.
        let mut at = number as f64 * hour;
        loop {
            at -= (1.0 - draw()).ln() * gap;
            if at >= (number + 1) as f64 * hour {
                break;
            }
            all.push((at, draw()));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: f64 = 86_400.0;

    fn inputs() -> Inputs {
        Inputs {
            budget_mib: 2048.0,
            daemon_mib: 48.0,
            awake_mib: 100.0,
            deep_mib: 10.0,
            joins_per_server_day: 0.0,
            day: DAY,
            awake_for: 3600.0,
        }
    }

    #[test]
    fn with_no_players_only_the_deep_ones_and_one_that_starts_count() {
        // 48 + 191 × 10 + 90 = 2048
        assert_eq!((inputs().always_awake(), inputs().asleep()), (20, 191));
    }

    #[test]
    fn who_is_always_played_on_saves_nothing() {
        let busy = Inputs { joins_per_server_day: 1000.0, awake_for: DAY, ..inputs() };
        assert_eq!(busy.asleep(), 20);
        let some = Inputs { joins_per_server_day: 2.0, ..inputs() };
        assert!((21..191).contains(&some.asleep()), "{}", some.asleep());
    }

    #[test]
    fn players_come_in_order_and_as_many_as_said() {
        let all = arrivals(1000.0, DAY);
        assert!((900..1100).contains(&all.len()), "{}", all.len());
        assert!(all.windows(2).all(|two| two[0].0 <= two[1].0));
        assert!(all.iter().all(|(at, draw)| (0.0..DAY).contains(at) && (0.0..1.0).contains(draw)));
        let evening = all.iter().filter(|(at, _)| *at > DAY / 2.0).count();
        assert!(evening * 2 > all.len(), "most come in the second half");
        assert!(arrivals(0.0, DAY).is_empty());
    }
}
