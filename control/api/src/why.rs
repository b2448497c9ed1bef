//! Why a server is in its stage, and what its wakes cost.

use serde::{Deserialize, Serialize};

use crate::command::Phases;
use crate::event::Class;
use crate::profile::Layer;
use crate::status::{HandedBack, Kept, Mode, Stage};

/// Answer of `GET /v1/servers/{name}/why`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    pub server: String,
    pub profile: String,
    /// Relative to the cgroup root, as the kernel prints it.
    pub cgroup: String,
    pub mode: Mode,
    pub stage: Stage,
    pub since_at_ms: u64,
    /// The daemon's clock when it answered.
    pub now_at_ms: u64,
    pub last_player_at_ms: Option<u64>,
    pub kept: Option<Kept>,
    /// The limits that decided, with the layer each came from.
    pub limits: Vec<Deciding>,
    /// What holds it where it is, a sentence each: `2 players`, `throttled: max-tick-time=60000; set it to -1
    /// in server.properties`. Most important first.
    pub reasons: Vec<String>,
    pub save: Option<Save>,
    /// What the game's own watchdog settings say, as found: `off (max-tick-time=-1)`.
    pub watchdog: Option<String>,
    pub memory: Option<SleeperMemory>,
    pub refused: Refused,
    /// `None` while it is awake.
    pub next_wake: Option<NextWake>,
    /// What a wake from deep costs it, in every stage; `None`: it may not go deep, or nobody can say.
    #[serde(default)]
    pub deep_wake: Option<DeepWake>,
    pub last_wake: Option<LastWake>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deciding {
    pub key: String,
    /// As it would be written in a file: `10m`.
    pub value: String,
    pub layer: Layer,
}

/// Save evidence: is the world on disk?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Save {
    Saved {
        at_ms: u64,
        /// `RCON save-all`, `map.sqlite closed`.
        by: String,
        took_ms: Option<u64>,
    },
    /// The profile or an operator says that there is nothing to save.
    NotNeeded { reason: String },
    /// No evidence: there is no freeze.
    Missing { reason: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SleeperMemory {
    pub handed_back: HandedBack,
    /// What it held awake.
    pub size_bytes: u64,
    /// `memory.current`, where there is a v2 memory controller.
    pub current_bytes: Option<u64>,
    pub swap_written_bytes: u64,
}

/// Who came since it fell asleep and didn't wake it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub pings: u64,
    /// Of these, how many had an answer.
    pub pings_answered: u64,
    pub probes: u64,
    pub scans: u64,
    /// How many different addresses the scans came from.
    pub scan_addresses: u64,
    /// Wakes that turned out to be nobody: the goal is 0.
    pub false_wakes: u64,
}

/// What the next wake will cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "lowercase")]
pub enum NextWake {
    /// Memory is resident: the thaw is all there is. How long the last wake from dozing took to its first answer,
    /// nanoseconds; `None` = none was measured yet.
    Dozing {
        last_answer_ns: Option<u64>,
    },
    Deep(DeepWake),
    /// Deep, and for this reason nobody can say.
    Unknown {
        reason: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeepWake {
    /// The estimate until the working set is back.
    pub estimate_ms: u64,
    /// What was recorded; with no wake recorded, the most that a first wake brings.
    pub working_set_bytes: u64,
    /// Wakes that the working set was learned from.
    pub wakes_recorded: u32,
    pub disk_bytes_per_second: Option<u64>,
    pub headroom_reserved: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastWake {
    /// When the waking packet (or command) came.
    pub at_ms: u64,
    /// The client's address and port; `None`: an operator, or dormouse itself.
    pub from: Option<String>,
    pub class: Option<Class>,
    /// What it was, for people: `Minecraft login`, `dormouse wake`.
    pub what: String,
    pub from_stage: Stage,
    pub phases: Phases,
    /// Of the waking connection, where they could be counted.
    pub retransmissions: Option<u32>,
}
