//! Erasure of a person's data (GDPR, Article 17): asked once, answered by every service.

use serde::{Deserialize, Serialize};

/// What stands where a person's id stood.
pub const NOBODY: &str = "erased";

/// `POST /v1/erasures`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewErasure {
    /// Opaque: an id that only the services can resolve, never a name or an address.
    pub subject: String,
    /// `None`: the operator's own, for the whole region.
    #[serde(default)]
    pub tenant: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Erasure {
    pub id: String,
    pub subject: String,
    pub tenant: Option<String>,
    pub requested_at_ms: u64,
    pub deadline_at_ms: u64,
    pub state: ErasureState,
    /// One row a service.
    pub services: Vec<ServiceErasure>,
    pub version: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ErasureState {
    Open,
    /// Open past its deadline.
    Overdue,
    Completed,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceErasure {
    /// A node's is called `node:NAME`.
    pub service: String,
    pub state: ServiceState,
    /// Rows deleted or made anonymous.
    pub count: u64,
    /// The legal reason of a `skipped`.
    pub reason: Option<String>,
    pub answered_at_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    Waiting,
    Erased,
    /// Not erased, for a legal reason.
    Skipped,
}

impl ServiceState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Erased => "erased",
            Self::Skipped => "skipped",
        }
    }
}

/// `POST /v1/erasures/{id}/answers`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ErasureAnswer {
    pub service: String,
    pub state: ServiceState,
    #[serde(default)]
    pub count: u64,
    #[serde(default)]
    pub reason: Option<String>,
}

/// What a node is asked, a line on its stream of commands. Repeated until it is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeErasure {
    /// The request's id.
    pub request: String,
    pub subject: String,
    /// `None`: of all tenants.
    pub tenant: Option<String>,
}

/// `POST /v1/nodes/{node}/erasures/{id}/answer`: erased, so many things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NodeErased {
    pub count: u64,
}

/// `POST /v1/erasures/replay`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// The moment of the backup, or earlier.
    pub since_at_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Replayed {
    /// How many are asked again.
    pub requests: u64,
}
