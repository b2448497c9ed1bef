//! Which region owns a server.

use serde::{Deserialize, Serialize};

/// `GET /v1/locate/{server}`: from the index, a hint; the region itself corrects a stale one with 421.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Location {
    pub server: String,
    pub region: String,
    /// The region's address, for instance `https://fra.example:7443`.
    pub url: String,
    /// For that region alone, and for a minute.
    pub token: String,
    pub expires_at_ms: u64,
    /// Whether the answer is this region's own row (`true`) or the shared index's hint.
    pub own: bool,
}

/// `GET /v1/index/check`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IndexCheck {
    pub differences: Vec<Difference>,
}

/// A server whose row and whose entry in the index don't agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Difference {
    pub server: String,
    pub kind: DifferenceKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// Not in the index.
    Missing,
    /// The index shows an older state.
    Old,
    /// The index says that another region owns it.
    Foreign,
    /// In the index as this region's, and no such server is here.
    Ghost,
}
