//! Making a running program a server.

use serde::{Deserialize, Serialize};

/// `POST /v1/adopt`: writes a server file in observe mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdoptRequest {
    /// `cgroup:GLOB`, `unit:NAME`, `docker:NAME` or `podman:NAME`.
    pub select: String,
    /// `None`: guessed from the listening sockets.
    #[serde(default)]
    pub profile: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptResult {
    /// The file that was written.
    pub file: String,
    pub text: String,
    /// The servers that it makes.
    pub servers: Vec<String>,
    /// What was guessed and from what; what an operator should look at.
    pub notes: Vec<String>,
}
