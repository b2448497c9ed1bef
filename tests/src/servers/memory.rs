//! A server that holds memory and touches a known part of it before it answers (`memory-server`).

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::{Game, Server, echo::sibling, own};
use crate::clients;
use crate::owner;
use crate::process::{Place, Process};

/// Holds `mib` MiB; a line `go` is answered when a fifth of them, in runs drawn by `seed`, was touched.
pub fn start(place: Place<'_>, port: u16, mib: u32, seed: u64) -> Result<Server> {
    let dir = owner::temp_dir("memory")?;
    let mut command = Command::new(sibling("memory-server")?);
    command.args(["--mib", &mib.to_string(), "--port", &port.to_string()]);
    let mut process = Process::spawn("memory-server", command, place)?;
    let set = format!("set runs {seed}");
    process.wait_until(Duration::from_mins(1), || {
        place.run(|| clients::line::ask(own(port), &set, Duration::from_secs(5)))
    })?;
    Ok(Server { game: Game::Memory, port, process, dir })
}
