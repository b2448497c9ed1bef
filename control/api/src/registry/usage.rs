//! What servers used.

use serde::{Deserialize, Serialize};

/// One server's use in a span of time, from its node's reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Usage {
    /// `TENANT/NAME`, or the tenant in its sum.
    pub name: String,
    pub awake_ms: u64,
    pub dozing_ms: u64,
    pub deep_ms: u64,
    /// Memory held, integrated over time: MiB × seconds.
    pub resident_mib_seconds: u64,
    /// What sleeping saved of what it holds awake: MiB × seconds.
    pub saved_mib_seconds: u64,
    pub wakes: u64,
}

/// `GET /v1/usage?…`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub struct UsageFilter {
    pub tenant: Option<String>,
    /// Whole days since 1970-01-01 UTC, in milliseconds; rounded down to a day [default: 30 days ago]
    pub from_at_ms: Option<u64>,
    pub to_at_ms: Option<u64>,
    /// `server` (a row each) or `tenant` (sums) [default: server]
    pub by: Option<By>,
    pub cursor: Option<String>,
    #[cfg_attr(feature = "openapi", param(minimum = 1, maximum = 500))]
    pub limit: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum By {
    #[default]
    Server,
    Tenant,
}
