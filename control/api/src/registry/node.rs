//! Nodes: what they report, what they are told.

use serde::{Deserialize, Serialize};

use super::erasure::NodeErasure;
use crate::status::{Guard, HandedBack, Kept, Mode, Stage};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Node {
    pub name: String,
    pub region: String,
    pub total_bytes: u64,
    /// Not promised to any server yet, by what servers need awake.
    pub free_bytes: u64,
    /// `None`: it never reported.
    pub report: Option<NodeFacts>,
    pub reported_at_ms: Option<u64>,
    pub version: u64,
}

/// `POST /v1/nodes`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewNode {
    /// Small letters, digits, `.` and `-`; at most 63.
    pub name: String,
    pub total_bytes: u64,
}

/// The node as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NodeFacts {
    pub awake: u32,
    pub dozing: u32,
    pub deep: u32,
    pub waking: u32,
    pub kept: u32,
    pub servers_bytes: u64,
    pub headroom_bytes: u64,
    pub total_bytes: u64,
    pub handed_back: HandedBack,
    pub guard: Guard,
    pub off: bool,
    /// Players whose wake waits, for memory or for a disk.
    #[serde(default)]
    pub players_waiting: u32,
}

/// `POST /v1/nodes/{node}/reports`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NodeReport {
    /// The node's clock.
    pub at_ms: u64,
    /// `profiles_from = "control"`: the node follows the registry's thresholds and modes.
    #[serde(default)]
    pub follows: bool,
    pub node: NodeFacts,
    pub servers: Vec<ServerFacts>,
}

/// One server in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ServerFacts {
    pub name: String,
    pub profile: String,
    pub mode: Mode,
    pub stage: Stage,
    pub since_at_ms: u64,
    pub flows: u32,
    pub resident_bytes: u64,
    pub size_bytes: u64,
    pub last_player_at_ms: Option<u64>,
    pub kept: Option<Kept>,
    pub note: Option<String>,
}

/// What the control plane answers a report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReportAnswer {
    /// Servers that run on the node and that the registry doesn't know.
    pub unknown: Vec<String>,
    /// Of the node's [`super::threshold::NodeProfiles`]: another than its own means fetch.
    pub profiles_revision: String,
}

/// What a node is asked to do to a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "verb")]
pub enum Order {
    Wake,
    Sleep { deep: bool },
    Keep { for_ms: u64, reason: String, owner: String },
    Release,
    SetMode { mode: Mode },
}

impl Order {
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Wake => "wake",
            Self::Sleep { .. } => "sleep",
            Self::Keep { .. } => "keep",
            Self::Release => "release",
            Self::SetMode { .. } => "set_mode",
        }
    }
}

/// How far a command came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum CommandState {
    /// The node has not answered yet.
    Waiting,
    Done,
    /// The node did not want to: the detail says why.
    Refused,
    /// Nobody carried it out in its time.
    Expired,
}

impl CommandState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Expired => "expired",
        }
    }
}

/// A command: delivered at least once, applied once, dropped when late.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Command {
    pub id: String,
    pub server: String,
    pub order: Order,
    /// The stage and its beginning that the decision was made on; a `sleep` decided on another one is dropped.
    pub decided_on: Option<DecidedOn>,
    pub created_at_ms: u64,
    pub expires_at_ms: u64,
    /// By the control plane's clock, when it was handed to the node: it lives on for this long.
    pub expires_in_ms: u64,
    pub state: CommandState,
    pub detail: Option<String>,
}

/// A line on a node's stream of commands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum ForNode {
    Command(Command),
    Erasure(NodeErasure),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DecidedOn {
    pub stage: Stage,
    pub since_at_ms: u64,
    /// Of the server's row in the registry.
    pub version: u64,
}

/// `POST /v1/nodes/{node}/commands/{id}/answer`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CommandAnswer {
    pub state: CommandState,
    #[serde(default)]
    pub detail: Option<String>,
}
