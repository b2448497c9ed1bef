//! What sleep was worth: hours in each stage, and memory handed back over time.
//!
//! Sums only, no money: prices and margins are the reader's, and so is the arithmetic on them.

use serde::{Deserialize, Serialize};

use crate::status::{Selector, query};

/// `GET /v1/savings?since_at_ms=…&until_at_ms=…&server=…&profile=…`; left out: the last thirty days.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavingsRequest {
    pub servers: Selector,
    pub since_at_ms: Option<u64>,
    pub until_at_ms: Option<u64>,
}

impl SavingsRequest {
    /// The query string, with its `?`; empty for everything of the last thirty days.
    pub fn query(&self) -> String {
        let moments = [("since_at_ms", self.since_at_ms), ("until_at_ms", self.until_at_ms)]
            .into_iter()
            .filter_map(|(key, at)| Some((key, at?.to_string())))
            .collect::<Vec<_>>();
        let servers = self.servers.servers.iter().map(|name| ("server", name.as_str()));
        let profile = self.servers.profile.iter().map(|name| ("profile", name.as_str()));
        query(moments.iter().map(|(key, at)| (*key, at.as_str())).chain(servers).chain(profile))
    }
}

/// Hours and memory times hours, summed over a period. A GiB-hour is one GiB (2^30 bytes) for an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    pub awake_hours: f64,
    pub dozing_hours: f64,
    pub deep_hours: f64,
    pub waking_hours: f64,
    /// What the servers hold awake, asleep or not.
    pub size_gib_hours: f64,
    /// Of that, what sleepers gave back to the node.
    pub handed_back_gib_hours: f64,
    pub swap_written_bytes: u64,
    /// Of servers in mode observe: what would have been.
    pub paper: Paper,
}

impl Sums {
    /// Hours of which there is data.
    pub fn hours(&self) -> f64 {
        self.awake_hours + self.dozing_hours + self.deep_hours + self.waking_hours
    }

    pub fn add(&mut self, other: &Self) {
        self.awake_hours += other.awake_hours;
        self.dozing_hours += other.dozing_hours;
        self.deep_hours += other.deep_hours;
        self.waking_hours += other.waking_hours;
        self.size_gib_hours += other.size_gib_hours;
        self.handed_back_gib_hours += other.handed_back_gib_hours;
        self.swap_written_bytes += other.swap_written_bytes;
        self.paper.dozing_hours += other.paper.dozing_hours;
        self.paper.deep_hours += other.paper.deep_hours;
        self.paper.handed_back_gib_hours += other.paper.handed_back_gib_hours;
    }
}

/// What would have been, had a server been allowed to sleep. Its hours are awake hours as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Paper {
    pub dozing_hours: f64,
    pub deep_hours: f64,
    /// Nine tenths of its anonymous memory while it would have been deep.
    pub handed_back_gib_hours: f64,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerSavings {
    pub name: String,
    pub profile: String,
    #[serde(flatten)]
    pub sums: Sums,
}

/// One day (UTC) of all selected servers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DaySavings {
    pub start_at_ms: u64,
    #[serde(flatten)]
    pub sums: Sums,
}

/// The answer. Hours without data count as nothing saved: they are in the period, not in the sums.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Savings {
    pub node: String,
    pub since_at_ms: u64,
    pub until_at_ms: u64,
    /// Hours of the period in which the node's daemon ran.
    pub covered_hours: f64,
    /// Memory kept free for wakes, which nobody else could have: to be taken off.
    pub headroom_gib_hours: f64,
    /// By name.
    pub servers: Vec<ServerSavings>,
    /// Days with data, oldest first.
    pub days: Vec<DaySavings>,
}

impl Savings {
    /// All selected servers together.
    pub fn total(&self) -> Sums {
        let mut total = Sums::default();
        self.servers.iter().for_each(|server| total.add(&server.sums));
        total
    }
}
