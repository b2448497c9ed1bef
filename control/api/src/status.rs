//! How the node and its servers are.

use serde::{Deserialize, Serialize};

use crate::why::DeepWake;

/// How much dormouse may do to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Decides on paper, touches nothing.
    Observe,
    /// May doze, never goes deep.
    Doze,
    /// May go as far as its floor.
    Full,
}

/// How awake a server is (design §1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Awake,
    /// Frozen or throttled, memory resident.
    Dozing,
    /// Cold memory on disk.
    Deep,
    Waking,
}

/// The guard as the daemon sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Guard {
    Ok,
    /// Not running: if the daemon died now, nobody would wake its sleepers.
    Absent,
    /// Running, but its own sign of life is old.
    Stale,
}

/// An operator forbids sleep: beside the stage, not one of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Kept {
    pub owner: String,
    pub reason: String,
    pub until_at_ms: u64,
}

/// Which servers a request is about. Empty = all. A server is selected when it satisfies both halves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Names; a name that doesn't exist is an error, not an empty answer.
    pub servers: Vec<String>,
    pub profile: Option<String>,
}

impl Selector {
    /// The query string, with its `?`; empty for all.
    pub fn query(&self) -> String {
        let servers = self.servers.iter().map(|name| ("server", name));
        let profile = self.profile.iter().map(|name| ("profile", name));
        query(servers.chain(profile).map(|(key, value)| (key, value.as_str())))
    }

    /// Whether a server of this name and profile is meant.
    pub fn selects(&self, server: &str, profile: &str) -> bool {
        (self.servers.is_empty() || self.servers.iter().any(|name| name == server))
            && self.profile.as_deref().is_none_or(|wanted| wanted == profile)
    }
}

pub(crate) fn query<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut query = String::new();
    for (key, value) in pairs {
        query.push(if query.is_empty() { '?' } else { '&' });
        query.push_str(key);
        query.push('=');
        query.push_str(&crate::path::encode(value));
    }
    query
}

/// Answer of `GET /v1/status?server=…&profile=…`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub node: NodeStatus,
    /// The selected servers, by name.
    pub servers: Vec<ServerStatus>,
}

/// The whole node, whatever was selected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub name: String,
    /// The daemon's clock when it answered: ages are counted from here.
    pub now_at_ms: u64,
    pub awake: u32,
    pub dozing: u32,
    pub deep: u32,
    pub waking: u32,
    /// Of all of these, how many an operator keeps awake.
    pub kept: u32,
    /// Memory that the servers hold now.
    pub servers_bytes: u64,
    /// Memory that a wake storm may need and that nobody else is promised.
    pub headroom_bytes: u64,
    /// What is missing to the headroom; above 0 no more servers should come here.
    #[serde(default)]
    pub short_bytes: u64,
    /// `None`: nothing limits what page-outs write (`deep_write_budget`).
    #[serde(default)]
    pub deep_writes: Option<DeepWrites>,
    /// The node's memory.
    pub total_bytes: u64,
    pub handed_back: HandedBack,
    pub guard: Guard,
    /// `dormouse off` holds: nothing sleeps until `dormouse on`.
    pub off: bool,
}

/// What page-outs write to swap, against the node's budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeepWrites {
    /// Since midnight UTC.
    pub today_bytes: u64,
    /// A day's.
    pub budget_bytes: u64,
}

/// Memory that sleepers gave back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HandedBack {
    pub bytes: u64,
    /// Judged by the node's free memory, for want of a v2 memory controller.
    pub estimated: bool,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    pub name: String,
    pub profile: String,
    pub mode: Mode,
    pub stage: Stage,
    /// When it came to this stage.
    pub since_at_ms: u64,
    /// Player flows seen in the last 60 s.
    pub flows: u32,
    pub resident_bytes: u64,
    /// What it holds awake.
    pub size_bytes: u64,
    /// `None`: no player since the daemon knows it.
    pub last_player_at_ms: Option<u64>,
    pub kept: Option<Kept>,
    /// What an operator should know: why only throttled, why refused, what would have been done in observe.
    pub note: Option<String>,
    /// Since the stage began.
    pub pings_answered: u64,
    /// Since the stage began.
    pub scans_refused: u64,
    /// What a wake from deep costs it, also while it is awake; `None`: it may not go deep, or nobody can say.
    #[serde(default)]
    pub deep_wake: Option<DeepWake>,
}
