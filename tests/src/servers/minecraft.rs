//! Minecraft Java: flying-squid from npm, a superflat world in memory.

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::{Game, Server, own};
use crate::clients;
use crate::clients::node;
use crate::owner;
use crate::process::{Place, Process};

/// The game version that server and clients speak, and its protocol number (minecraft.wiki, Protocol version numbers).
pub const VERSION: &str = "1.16.5";
pub const PROTOCOL: u32 = 754;

pub fn start(place: Place<'_>, port: u16) -> Result<Server> {
    let dir = owner::temp_dir("minecraft")?;
    let mut command = Command::new("node");
    command.arg(node::script("server.cjs")?).args([&port.to_string(), VERSION]).current_dir(dir.path());
    let mut process = Process::spawn("flying-squid", command, place)?;
    process.wait_until(Duration::from_mins(1), || {
        place.run(|| clients::minecraft::status(own(port), Duration::from_secs(5)))
    })?;
    Ok(Server { game: Game::Minecraft, port, process, dir })
}

/// `joined NAME from ADDRESS`, printed by fixtures/node/server.cjs and fixtures/java/Tick.java.
pub(super) fn joined_from(log: &str, name: &str) -> Option<IpAddr> {
    let joined = format!("joined {name} from ");
    log.lines().rev().find_map(|line| line.strip_prefix(&joined)?.parse().ok())
}
