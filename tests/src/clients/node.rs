//! Players from npm (tests/fixtures/node): mineflayer for Minecraft, teeworlds for DDNet.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::Join;
use crate::process::{Place, Process};
use crate::servers::minecraft::VERSION;

/// Spawns in the world as `name`, stays for `stay`, and leaves.
pub fn minecraft_join(place: Place<'_>, to: SocketAddr, name: &str, stay: Duration) -> Result<Join> {
    join(place, "minecraft_join.cjs", to, &[VERSION, name], stay)
}

/// Enters the game as `name`, stays for `stay`, and leaves. The npm package knows IPv4 only.
pub fn ddnet_join(place: Place<'_>, to: SocketAddr, name: &str, stay: Duration) -> Result<Join> {
    ensure!(to.is_ipv4(), "the npm package teeworlds can't join {to}: IPv4 only");
    join(place, "ddnet_join.cjs", to, &[name], stay)
}

/// A script of the fixtures, when its packages are installed.
pub(crate) fn script(name: &str) -> Result<PathBuf> {
    let dir = crate::fixtures().join("node");
    ensure!(
        dir.join("node_modules").is_dir(),
        "{} has no node_modules: run scripts/setup games",
        dir.display()
    );
    Ok(dir.join(name))
}

#[derive(Deserialize)]
struct Printed {
    first_reply_ms: Option<f64>,
    joined_ms: Option<f64>,
    error: Option<String>,
}

fn join(place: Place<'_>, name: &str, to: SocketAddr, more: &[&str], stay: Duration) -> Result<Join> {
    let mut command = Command::new("node");
    command.arg(script(name)?).args([to.ip().to_string(), to.port().to_string()]).args(more);
    command.arg(stay.as_millis().to_string());
    let mut process = Process::spawn(name, command, place)?;
    process.wait(stay + Duration::from_mins(1))?;
    let log = process.log();
    let line = log.lines().rev().find(|line| line.starts_with('{'));
    let line = line.with_context(|| format!("{name} printed no result:\n{log}"))?;
    let printed: Printed = serde_json::from_str(line).with_context(|| format!("{name} printed {line}"))?;
    match printed {
        Printed { joined_ms: Some(joined), first_reply_ms: Some(first), .. } => {
            Ok(Join { first_reply: ms(first), joined: ms(joined) })
        }
        Printed { error, .. } => bail!("{name}: {}", error.unwrap_or_else(|| log.clone())),
    }
}

fn ms(ms: f64) -> Duration {
    Duration::from_secs_f64(ms / 1000.0)
}
