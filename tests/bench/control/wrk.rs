//! Load by wrk: closed loop, sixteen connections from one core.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::{Kind, LOAD_CORE, region::Running};

/// Enough to keep a server with a disk to wait for busy, few enough not to queue for its pools.
const CONNECTIONS: u32 = 16;

#[derive(Deserialize)]
struct Outcome {
    requests: u64,
    seconds: f64,
    failed: u64,
}

/// Answers a second.
pub fn load(at: &Running, kind: Kind, servers: u32, seconds: u32) -> Result<f64> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/control/load.lua");
    let output = Command::new("taskset")
        .args(["-c", &LOAD_CORE.to_string(), "wrk", "-t1", &format!("-c{CONNECTIONS}")])
        .args([&format!("-d{seconds}s"), "-s", script, &at.url, "--", kind.word(), &servers.to_string()])
        .env("DORMOUSE_TOKEN", &at.token)
        .output()
        .context("wrk: is it installed? scripts/setup control")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk: {}{text}", String::from_utf8_lossy(&output.stderr));
    let line = text.lines().rfind(|line| line.starts_with('{')).with_context(|| format!("wrk: {text}"))?;
    let outcome: Outcome = serde_json::from_str(line)?;
    let Outcome { requests, failed, .. } = outcome;
    ensure!(failed == 0, "{failed} of {requests} requests failed: {text}\nThe server says:\n{}", at.log());
    Ok(outcome.requests as f64 / outcome.seconds)
}
