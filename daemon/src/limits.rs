//! What one server may be asked to bear: the resolved outcome of all threshold layers. Plain values, so
//! that the stage machine, the configuration and the door agree on one set of words.

use std::time::Duration;

/// How much dormouse may do to a server. A new server starts in `Observe`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Decides on paper, touches nothing.
    #[default]
    Observe,
    /// May doze, never goes deep.
    Doze,
    /// May go as far as its floor.
    Full,
}

/// How far down a server may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Floor {
    Awake,
    Dozing,
    Deep,
}

/// How a server dozes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DozeBy {
    /// `cgroup.freeze`: its clock stops.
    Freeze,
    /// `cpu.max`: its clock goes on, slowly.
    Throttle,
}

/// How a deep sleeper's memory comes back. The working set always does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BringBack {
    /// While the server runs already.
    Beside,
    /// Before it runs: for games whose ticks must not wait for a disk.
    Before,
    /// Beside, and then all the rest in the background: for collectors that walk the whole heap (JVM).
    All,
}

/// Who speaks first on a TCP connection (design §3, ways for TCP).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FirstSpeaker {
    Client,
    /// A completed handshake wakes.
    Server,
    /// A connection that stays silent for `patience` wakes.
    Unknown,
}

/// What payload does that did not come through the door as a new player's: over the server's own `lo`, or on
/// a connection older than the doze.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reaction {
    Wake,
    Ignore,
}

/// Hours of the week in which a server never sleeps, in the node's local time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Window {
    /// The days it starts on: bit 0 = Monday … bit 6 = Sunday.
    pub days: u8,
    /// Minutes after midnight, inclusive.
    pub from: u16,
    /// Minutes after midnight, exclusive; not after `from` means that it ends on the next day.
    pub until: u16,
}

impl Window {
    /// Whether a minute after midnight of a weekday (0 = Monday) is inside.
    pub fn contains(&self, weekday: u8, minute: u16) -> bool {
        let starts = |day: u8| self.days & (1 << (day % 7)) != 0;
        if self.from < self.until {
            starts(weekday) && self.from <= minute && minute < self.until
        } else {
            (starts(weekday) && self.from <= minute) || (starts(weekday + 6) && minute < self.until)
        }
    }
}

/// The thresholds of one server. Durations count from the last player packet unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Limits {
    pub doze_after: Duration,
    /// Counted from the start of the doze; `None` = never deep.
    pub deep_after: Option<Duration>,
    pub floor: Floor,
    pub doze_by: DozeBy,
    /// CPU left to a throttled server, in percent of one core.
    pub throttle_percent: u32,
    /// Bytes that a deep server keeps resident.
    pub resident_min: u64,
    pub bring_back: BringBack,
    /// Counted from the last wake.
    pub min_awake: Duration,
    /// Counted from the start of the server's process.
    pub grace_after_start: Duration,
    /// More wakes than this in an hour, and the server is kept awake for the rest of it (it never refuses).
    pub wakes_per_hour: u32,
    /// How long an undecided or silent connection is waited for.
    pub patience: Duration,
    /// At most one short thaw for queries in this time.
    pub query_every: Duration,
    /// The longest such thaw.
    pub query_thaw: Duration,
    pub first_speaker: FirstSpeaker,
    /// A server that uses more CPU than this without players is working: it stays awake. Percent of a core.
    pub busy_cpu_percent: Option<u32>,
    /// How long save evidence is waited for before the server is throttled instead of frozen.
    pub save_wait: Duration,
    /// Traffic over the server's own `lo` (sidecars, RCON) while it sleeps.
    pub loopback: Reaction,
    /// Payload on connections older than the doze (RCON, a proxy, a database).
    pub old_links: Reaction,
    /// Servers, by name, that wake when this one wakes.
    pub linked: Vec<String>,
    /// Never asleep in these.
    pub windows: Vec<Window>,
}
