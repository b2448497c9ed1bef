//! Thresholds, and the layers that they come from.

use serde::{Deserialize, Serialize};

/// The layers, low to high (design §6): the highest that names a key wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    BuiltIn,
    /// The game's profile.
    Profile,
    /// The server's own file.
    Server,
    /// Set by an operator on this node, with an end.
    Override,
}

impl Layer {
    /// As an operator reads it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::BuiltIn => "built-in",
            Self::Profile => "profile",
            Self::Server => "server",
            Self::Override => "override",
        }
    }
}

/// A value as operators read it and type it: `10m` for TOML's `"10m"`, the rest as it is.
pub fn shown(toml: &str) -> String {
    toml.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(toml).to_owned()
}

/// What a setting belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Server(String),
    /// Every server of a profile.
    Profile(String),
}

/// One row of `GET /v1/profiles`. Values are written as in a file: `10m`, `freeze`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileSummary {
    pub name: String,
    /// How many servers here use it.
    pub servers: u32,
    pub doze_by: String,
    pub doze_after: String,
    /// `None`: never deep.
    pub deep_after: Option<String>,
    pub floor: String,
    /// Which version of the game was tried, when and by whom; `None`: never.
    pub verified: Option<String>,
}

/// Answer of `GET /v1/profiles/{name}` and of `GET /v1/servers/{name}/limits`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Explain {
    /// The name of the server or the profile.
    pub name: String,
    /// The profile whose layers these are.
    pub profile: String,
    pub settings: Vec<Setting>,
}

/// One key, with every layer that names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Setting {
    pub key: String,
    /// The value that holds, as an operator types it.
    pub value: String,
    /// The layer it came from.
    pub won: Layer,
    /// Low to high.
    pub layers: Vec<LayerValue>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LayerValue {
    pub layer: Layer,
    pub value: String,
    /// The file that says so; `None`: built in.
    pub file: Option<String>,
    /// When an override ends.
    pub until_at_ms: Option<u64>,
}

/// `PATCH /v1/profiles/{name}` or `/v1/servers/{name}/limits`: an override. Answers with the new [`Explain`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetRequest {
    pub key: String,
    pub value: String,
    pub for_ms: u64,
}
