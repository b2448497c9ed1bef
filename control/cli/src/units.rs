//! Numbers as people read them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The moment and the place that an answer is read in.
#[derive(Clone, Debug)]
pub struct Clock {
    pub now_ms: u64,
    pub zone: TimeZone,
}

impl Clock {
    /// The reader's own zone, and the daemon's time.
    pub fn local(now_ms: u64) -> Self {
        Self { now_ms, zone: TimeZone::system() }
    }

    /// For answers that carry no time of their own.
    pub fn now() -> Self {
        Self::local(u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0))
    }

    /// `23:14:07`; with its date when it is a day away or more.
    pub fn time(&self, at_ms: u64) -> String {
        self.format(at_ms, "%T", "%F %T")
    }

    /// As [`Clock::time`], with milliseconds.
    pub fn time_ms(&self, at_ms: u64) -> String {
        self.format(at_ms, "%T.%3f", "%F %T.%3f")
    }

    /// `18:00`; with its date when it is a day away or more.
    pub fn minute(&self, at_ms: u64) -> String {
        self.format(at_ms, "%R", "%F %R")
    }

    /// Always with its date.
    pub fn date_time_ms(&self, at_ms: u64) -> String {
        self.format(at_ms, "%F %T.%3f", "%F %T.%3f")
    }

    /// How long ago, as [`duration`].
    pub fn since(&self, at_ms: u64) -> String {
        duration(self.now_ms.saturating_sub(at_ms))
    }

    fn format(&self, at_ms: u64, near: &str, far: &str) -> String {
        let format = if self.now_ms.abs_diff(at_ms) < DAY_MS { near } else { far };
        match i64::try_from(at_ms).ok().and_then(|at| Timestamp::from_millisecond(at).ok()) {
            Some(at) => at.to_zoned(self.zone.clone()).strftime(format).to_string(),
            None => "?".to_owned(),
        }
    }
}

/// The two largest units: `3d04h`, `9h02m`, `31m`, `12s`.
pub fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m"),
        (0, _, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

/// `0.24 s`, `1.1 s`, `12 s`.
pub fn seconds(ms: u64) -> String {
    let seconds = ms as f64 / 1000.0;
    match ms {
        0..1000 => format!("{seconds:.2} s"),
        1000..9950 => format!("{seconds:.1} s"),
        _ => format!("{seconds:.0} s"),
    }
}

/// Milliseconds without their unit: `0.04`, `0.4`, `31`.
pub fn ms(ns: u64) -> String {
    let ms = ns as f64 / 1e6;
    match ns {
        0..95_000 => format!("{ms:.2}"),
        95_000..9_950_000 => format!("{ms:.1}"),
        _ => format!("{ms:.0}"),
    }
}

/// What a size is counted in.
#[derive(Clone, Copy, Debug)]
pub struct Unit {
    bytes: f64,
    decimals: usize,
    pub name: &'static str,
}

impl Unit {
    const BYTE: Self = Self { bytes: 1.0, decimals: 0, name: "B" };
    const LARGER: [Self; 3] = [
        Self { bytes: 1_073_741_824.0, decimals: 1, name: "GiB" },
        Self { bytes: 1_048_576.0, decimals: 0, name: "MiB" },
        Self { bytes: 1024.0, decimals: 0, name: "KiB" },
    ];

    /// The unit that `bytes` reads best in: what would round to 1024 MiB is 1.0 GiB.
    pub fn of(bytes: u64) -> Self {
        let reads_well = |unit: &Self| bytes as f64 >= unit.bytes * (1023.5 / 1024.0);
        Self::LARGER.into_iter().find(reads_well).unwrap_or(Self::BYTE)
    }

    /// A size in this unit, without its name.
    pub fn count(self, bytes: u64) -> String {
        format!("{:.*}", self.decimals, bytes as f64 / self.bytes)
    }
}

/// `5.7 GiB`, `311 MiB`.
pub fn bytes(bytes: u64) -> String {
    let unit = Unit::of(bytes);
    format!("{} {}", unit.count(bytes), unit.name)
}

/// `1 server`, `2 servers`.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_show_two_units() {
        let shown = [0, 59_999, 60_000, 1_900_000, 3_600_000, 32_520_000, 273_600_000].map(duration);
        assert_eq!(shown, ["0s", "59s", "1m", "31m", "1h00m", "9h02m", "3d04h"]);
    }

    #[test]
    fn sizes_read_in_their_own_unit() {
        let shown = [0, 1023, 1024, 311 << 20, (1 << 30) - 1, 1 << 30, 6_120_328_396].map(bytes);
        assert_eq!(shown, ["0 B", "1023 B", "1 KiB", "311 MiB", "1.0 GiB", "1.0 GiB", "5.7 GiB"]);
    }

    #[test]
    fn short_times_keep_two_digits() {
        assert_eq!(
            [40_000, 95_000, 400_000, 9_949_999, 31_000_000].map(ms),
            ["0.04", "0.1", "0.4", "9.9", "31"]
        );
        assert_eq!(
            [240, 999, 1100, 9_949, 12_000].map(seconds),
            ["0.24 s", "1.00 s", "1.1 s", "9.9 s", "12 s"]
        );
    }

    #[test]
    fn a_time_a_day_away_has_its_date() {
        let clock = Clock { now_ms: 1_795_000_000_000, zone: TimeZone::UTC };
        assert_eq!(clock.time(clock.now_ms), "11:06:40");
        assert_eq!(clock.time_ms(clock.now_ms + 402), "11:06:40.402");
        assert_eq!(clock.minute(clock.now_ms - DAY_MS), "2026-11-17 11:06");
        assert_eq!(clock.time(u64::MAX), "?");
    }
}
