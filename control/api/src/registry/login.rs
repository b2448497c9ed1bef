//! From a stored key to a token that lives for minutes.

use serde::{Deserialize, Serialize};

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// One tenant's own things.
    Tenant,
    /// Everything in the region.
    Operator,
    /// One node's reports and commands.
    Node,
    /// A service: reads the bus, answers erasures.
    Service,
}

impl Role {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Operator => "operator",
            Self::Node => "node",
            Self::Service => "service",
        }
    }
}

/// `POST /v1/login`
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The key's id.
    pub key: String,
    pub secret: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("key", &self.key).finish_non_exhaustive()
    }
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Token {
    /// PASETO v4.public; sent as `Authorization: Bearer …`.
    pub token: String,
    pub expires_at_ms: u64,
}

/// `POST /v1/keys`: a key for a service, a node or a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    pub title: String,
    pub role: Role,
    /// For the role `tenant`.
    #[serde(default)]
    pub tenant: Option<String>,
    /// For the role `node`.
    #[serde(default)]
    pub node: Option<String>,
}

/// A stored key, without its secret. To rotate: make a second one, hand it out, delete the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Key {
    pub id: String,
    pub title: String,
    pub role: Role,
    pub tenant: Option<String>,
    pub node: Option<String>,
    pub created_at_ms: u64,
    pub version: u64,
}

/// The one time that a secret is shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatedKey {
    pub key: Key,
    pub secret: String,
}
