//! What an operator asks of one server.

use serde::{Deserialize, Serialize};

use crate::status::{Mode, Stage};

/// The phases of a wake, each counted from the packet that woke (or from the command).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phases {
    pub decided_ns: Option<u64>,
    pub thawed_ns: Option<u64>,
    /// The server's first payload after the thaw.
    pub first_answer_ns: Option<u64>,
    /// The recorded working set is in memory again.
    pub working_set_ns: Option<u64>,
}

/// `POST /v1/servers/{name}/wake`; answers when the server answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct WakeRequest {
    /// Keep it awake as well.
    #[serde(default)]
    pub keep: Option<KeepRequest>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WakeResult {
    pub server: String,
    /// The stage it was woken from; `awake`: there was nothing to do.
    pub from_stage: Stage,
    pub phases: Phases,
}

/// `POST /v1/servers/{name}/sleep`: the same checks as the daemon's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SleepRequest {
    /// As far as its floor, at once, instead of a doze.
    #[serde(default)]
    pub deep: bool,
}

/// `POST /v1/servers/{name}/keep`: no sleep until the end. A second one replaces the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct KeepRequest {
    pub for_ms: u64,
    pub reason: String,
    pub owner: String,
}

/// `PUT /v1/servers/{name}/mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ModeRequest {
    pub mode: Mode,
}
