//! What this machine has and lacks.

use serde::{Deserialize, Serialize};

/// Answer of `GET /v1/preflight`, and what `dormoused preflight -o json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preflight {
    pub checks: Vec<Check>,
    /// `None`: there is no swap, so nothing goes deep.
    pub disk: Option<Disk>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at: `kernel`, `swap`, `server acme/survival`.
    pub name: String,
    pub result: CheckResult,
    pub found: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckResult {
    Ok,
    /// Works, but less well than it could.
    Warn,
    /// Something that dormouse is for will not work.
    Fail,
}

/// The device that deep sleepers are written to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    pub device: String,
    /// Sequential read, measured.
    pub read_bytes_per_second: u64,
    /// The median read of one page, nanoseconds, measured.
    #[serde(default)]
    pub read_latency_ns: u64,
}
