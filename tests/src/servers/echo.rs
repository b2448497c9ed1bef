//! The tiny echo server of this crate (TCP and UDP, both families): the benches' baseline.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Game, Server, own};
use crate::clients;
use crate::owner;
use crate::process::{Place, Process};

pub fn start(place: Place<'_>, port: u16) -> Result<Server> {
    run(place, port, &[])
}

/// With `greeting` the server speaks first on TCP.
pub fn start_with(place: Place<'_>, port: u16, greeting: Option<&str>) -> Result<Server> {
    match greeting {
        Some(line) => run(place, port, &["--greeting", line]),
        None => start(place, port),
    }
}

/// A server that holds this much memory, and tells whether all of it is as it was when it is asked `check`.
pub fn start_holding(place: Place<'_>, port: u16, mib: u32) -> Result<Server> {
    run(place, port, &["--mib", &mib.to_string()])
}

fn run(place: Place<'_>, port: u16, options: &[&str]) -> Result<Server> {
    let dir = owner::temp_dir("echo")?;
    let mut command = Command::new(sibling("echo-server")?);
    command.args(["--port", &port.to_string()]).args(options);
    let mut process = Process::spawn("echo-server", command, place)?;
    process.wait_until(Duration::from_secs(20), || {
        place.run(|| clients::echo::udp(own(port), b"ready?", Duration::from_millis(200)))
    })?;
    Ok(Server { game: Game::Echo, port, process, dir })
}

/// A program built beside the running one; tests run from the `deps` folder below it.
pub fn sibling(name: &str) -> Result<PathBuf> {
    let exe = env::current_exe().context("the path of this program")?;
    let found = exe.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.with_context(|| {
        format!("{name} is not built beside {}: run cargo build -p dormouse-tests", exe.display())
    })
}
