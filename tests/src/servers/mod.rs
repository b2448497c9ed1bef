//! Real game servers, each started in a namespace and a cgroup and waited for until it answers a client.

pub mod ddnet;
pub mod echo;
pub mod java;
pub mod luanti;
pub mod memory;
pub mod minecraft;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::process::Process;
use crate::topology::Transport;

/// A running server with its working directory (world, settings), which is removed with it.
pub struct Server {
    pub game: Game,
    pub port: u16,
    pub process: Process,
    dir: TempDir,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Game {
    Minecraft,
    Luanti,
    DdNet,
    Heap,
    Tick,
    Echo,
    Memory,
}

impl Game {
    /// The game's own transport; the echo server speaks both, TCP is named here.
    pub fn transport(self) -> Transport {
        match self {
            Game::Luanti | Game::DdNet => Transport::Udp,
            Game::Minecraft | Game::Heap | Game::Tick | Game::Echo | Game::Memory => Transport::Tcp,
        }
    }
}

impl Server {
    /// Its working directory: settings and world.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The address of the player called `name`, as the server itself logged it at the (last) join. Waits for that
    /// line: servers write it a moment after the player's first view of the world.
    pub fn seen_address(&mut self, name: &str) -> Result<IpAddr> {
        let joined_from = match self.game {
            Game::Minecraft | Game::Tick => minecraft::joined_from,
            Game::Luanti => luanti::joined_from,
            Game::DdNet => ddnet::joined_from,
            Game::Heap | Game::Echo | Game::Memory => bail!("{:?} has no players with names", self.game),
        };
        let log = self.process.log_path().to_owned();
        let address = self.process.wait_until(Duration::from_secs(5), || {
            let log = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
            joined_from(&log, name).with_context(|| format!("no join of {name} in the log"))
        })?;
        Ok(address.to_canonical())
    }
}

/// Where a server is asked from inside its own namespace.
fn own(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// The first of the paths that exists: distributions call the same server by different names.
fn program(candidates: &[&str]) -> Result<PathBuf> {
    match candidates.iter().map(PathBuf::from).find(|path| path.exists()) {
        Some(path) => Ok(path),
        None => bail!("none of {} is installed: run scripts/setup games", candidates.join(", ")),
    }
}
