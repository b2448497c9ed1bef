//! The thresholds of games and servers: which there are, and how they are changed in the registry.

use serde::{Deserialize, Serialize};

/// What kind of value a threshold takes, written as in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `10m`
    Duration,
    /// `20m` or `never`
    DurationOrNever,
    /// `12`
    Number,
    /// `30` or `never`
    NumberOrNever,
    /// `64MiB`
    Size,
    Words(&'static [&'static str]),
    /// `["acme/lobby"]`
    Names,
    /// `["fri,sat 18:00-02:00"]`
    Windows,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    pub key: &'static str,
    pub kind: Kind,
    /// The lowest layer's value, as it would be written in TOML.
    pub built_in: &'static str,
}

const fn threshold(key: &'static str, kind: Kind, built_in: &'static str) -> Threshold {
    Threshold { key, kind, built_in }
}

const REACTION: Kind = Kind::Words(&["wake", "ignore"]);

/// Every threshold there is. The node's own list is held to this one by a test.
pub const THRESHOLDS: &[Threshold] = &[
    threshold("doze_after", Kind::Duration, "\"30m\""),
    threshold("deep_after", Kind::DurationOrNever, "\"never\""),
    threshold("floor", Kind::Words(&["awake", "dozing", "deep"]), "\"dozing\""),
    threshold("doze_by", Kind::Words(&["freeze", "throttle"]), "\"throttle\""),
    threshold("throttle_percent", Kind::Number, "10"),
    threshold("resident_min", Kind::Size, "\"0B\""),
    threshold("bring_back", Kind::Words(&["beside", "before", "all"]), "\"beside\""),
    threshold("min_awake", Kind::Duration, "\"5m\""),
    threshold("grace_after_start", Kind::Duration, "\"10m\""),
    threshold("wakes_per_hour", Kind::Number, "12"),
    threshold("patience", Kind::Duration, "\"3s\""),
    threshold("query_every", Kind::Duration, "\"2s\""),
    threshold("query_thaw", Kind::Duration, "\"100ms\""),
    threshold("first_speaker", Kind::Words(&["client", "server", "unknown"]), "\"unknown\""),
    threshold("busy_cpu_percent", Kind::NumberOrNever, "\"never\""),
    threshold("save_wait", Kind::Duration, "\"1m\""),
    threshold("loopback", REACTION, "\"wake\""),
    threshold("old_links", REACTION, "\"wake\""),
    threshold("linked", Kind::Names, "[]"),
    threshold("windows", Kind::Windows, "[]"),
];

pub fn find(key: &str) -> Option<&'static Threshold> {
    THRESHOLDS.iter().find(|threshold| threshold.key == key)
}

/// `PATCH /v1/profiles/{name}` or `/v1/servers/{name}/limits`: the registry's game or server layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SetThreshold {
    pub key: String,
    /// As it would be written in TOML, or a word without its quotes.
    pub value: String,
    /// Kept in the history.
    #[serde(default)]
    pub reason: Option<String>,
}

/// A game's profile in the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Profile {
    pub name: String,
    /// What the game layer says, by key.
    pub limits: std::collections::BTreeMap<String, String>,
    /// How many of the asker's servers use it.
    pub servers: u64,
    pub version: u64,
}

/// `POST /v1/profiles`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewProfile {
    pub name: String,
}

/// One change of a layer, newest first in a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Change {
    pub at_ms: u64,
    /// Who asked: the subject of the token.
    pub by: String,
    pub key: String,
    /// `None`: was not set.
    pub old: Option<String>,
    /// `None`: removed.
    pub new: Option<String>,
    pub reason: Option<String>,
}

/// `GET /v1/nodes/{node}/profiles`: the two middle layers for one node (`profiles_from = "control"`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeProfiles {
    /// Changes whenever anything in it does; the answer's ETag.
    pub revision: String,
    /// Game layers by profile, then key.
    pub profiles: std::collections::BTreeMap<String, std::collections::BTreeMap<String, String>>,
    /// Server layers by server, then key.
    pub servers: std::collections::BTreeMap<String, std::collections::BTreeMap<String, String>>,
}
