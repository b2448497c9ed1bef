//! One line of the books.

use serde::{Deserialize, Serialize};

/// Seconds in an hour: the length of a fresh row.
pub const HOUR: u64 = 3600;
/// Seconds in a day (UTC): the length of a row that was folded.
pub const DAY: u64 = 86_400;

/// One server (or the node itself) in one hour; of old times, in one day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// `None`: the node. Its `awake_ms` is the time that the daemon ran, its `size` the headroom for wakes.
    pub server: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub profile: String,
    /// When the hour (or day) began, seconds since 1970.
    pub start: u64,
    #[serde(flatten)]
    pub tally: Tally,
}

/// What is counted. Memory is in byte-seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    pub awake_ms: u64,
    pub dozing_ms: u64,
    pub deep_ms: u64,
    pub waking_ms: u64,
    pub size: u64,
    pub handed_back: u64,
    /// Bytes written to swap.
    pub written: u64,
    /// In mode observe: of the awake time, what would have been slept, and what would have been handed back.
    pub paper_dozing_ms: u64,
    pub paper_deep_ms: u64,
    pub paper_handed_back: u64,
}

impl Tally {
    /// Saturates: a year of a machine's memory is below 2^64 byte-seconds up to 580 GiB, a day up to 200 TiB.
    pub fn add(&mut self, other: &Self) {
        let fields: [(&mut u64, u64); 10] = [
            (&mut self.awake_ms, other.awake_ms),
            (&mut self.dozing_ms, other.dozing_ms),
            (&mut self.deep_ms, other.deep_ms),
            (&mut self.waking_ms, other.waking_ms),
            (&mut self.size, other.size),
            (&mut self.handed_back, other.handed_back),
            (&mut self.written, other.written),
            (&mut self.paper_dozing_ms, other.paper_dozing_ms),
            (&mut self.paper_deep_ms, other.paper_deep_ms),
            (&mut self.paper_handed_back, other.paper_handed_back),
        ];
        for (sum, more) in fields {
            *sum = sum.saturating_add(more);
        }
    }
}

/// Memory held for a time, in byte-seconds.
pub fn byte_seconds(bytes: u64, ms: u64) -> u64 {
    u64::try_from(u128::from(bytes) * u128::from(ms) / 1000).unwrap_or(u64::MAX)
}
