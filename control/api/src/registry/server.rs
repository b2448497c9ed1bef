//! Servers as the registry knows them.

use serde::{Deserialize, Serialize};

use crate::status::{Kept, Mode, Stage};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Server {
    /// `TENANT/NAME`
    pub name: String,
    pub tenant: String,
    pub profile: String,
    /// What the operator allows; the node follows it.
    pub mode: Mode,
    /// The region that owns it.
    pub region: String,
    /// The node it runs on; `None`: not placed yet.
    pub node: Option<String>,
    /// What it needs awake.
    pub memory_bytes: u64,
    /// Where players connect, as the operator wrote it.
    pub address: Option<String>,
    /// What its node reported last.
    pub report: Option<ServerReport>,
    pub created_at_ms: u64,
    pub changed_at_ms: u64,
    pub version: u64,
}

/// What a node last said of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServerReport {
    pub stage: Stage,
    /// When it came to this stage.
    pub since_at_ms: u64,
    /// Player flows seen in the last 60 s.
    pub flows: u32,
    pub resident_bytes: u64,
    pub size_bytes: u64,
    pub last_player_at_ms: Option<u64>,
    pub kept: Option<Kept>,
    pub note: Option<String>,
    /// When the node said so, by the control plane's clock.
    pub reported_at_ms: u64,
}

/// `POST /v1/servers`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewServer {
    /// `TENANT/NAME`: small letters, digits, `.`, `_`, `-`; at most 63 a part.
    pub name: String,
    pub profile: String,
    /// `None`: observe.
    #[serde(default)]
    pub mode: Option<Mode>,
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    #[serde(default)]
    pub address: Option<String>,
    /// The node it runs on; without it and with `near`, one is chosen.
    #[serde(default)]
    pub node: Option<String>,
    /// A region: the server is placed there if there is room, else in the nearest region that has room.
    #[serde(default)]
    pub near: Option<String>,
}

/// `PATCH /v1/servers/{name}`: what is left out stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ChangeServer {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// `GET /v1/servers?…`: what is left out selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub struct ServerFilter {
    pub tenant: Option<String>,
    pub profile: Option<String>,
    pub node: Option<String>,
    pub stage: Option<Stage>,
    /// `next` of the page before.
    pub cursor: Option<String>,
    /// 1 to 500 [default: 100]
    #[cfg_attr(feature = "openapi", param(minimum = 1, maximum = 500))]
    pub limit: Option<u32>,
}
