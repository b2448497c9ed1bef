//! Luanti (once Minetest): Debian's server with a throw-away world.

use std::fs;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::{Game, Server, own, program};
use crate::clients;
use crate::owner;
use crate::process::{Place, Process};

pub fn start(place: Place<'_>, port: u16) -> Result<Server> {
    let dir = owner::temp_dir("luanti")?;
    let (world, config) = (dir.path().join("world"), dir.path().join("luanti.conf"));
    fs::create_dir(&world)?;
    fs::write(
        world.join("world.mt"),
        "gameid = devtest\nbackend = sqlite3\nplayer_backend = sqlite3\nauth_backend = sqlite3\n",
    )?;
    // An IPv6 socket that takes IPv4 too; no map generator, so that a join costs no terrain.
    fs::write(
        &config,
        "ipv6_server = true\nserver_announce = false\nmg_name = singlenode\nbind_address = ::\n",
    )?;

    let mut command = Command::new(program(&["/usr/games/luantiserver", "/usr/games/minetestserver"])?);
    command.arg("--world").arg(&world).arg("--config").arg(&config);
    // Without --logfile the log also goes to a file in the home directory.
    command.args(["--port", &port.to_string(), "--gameid", "devtest", "--logfile", "", "--color", "never"]);
    command.current_dir(dir.path()).env("HOME", dir.path());
    let mut process = Process::spawn("luanti", command, place)?;
    process.wait_until(Duration::from_mins(1), || {
        place.run(|| clients::luanti::ping(own(port), Duration::from_millis(500)))
    })?;
    Ok(Server { game: Game::Luanti, port, process, dir })
}

/// `…: ACTION[Server]: NAME [ADDRESS] joins game. …`
pub(super) fn joined_from(log: &str, name: &str) -> Option<IpAddr> {
    let joined = format!(" {name} [");
    let mut addresses = log.lines().rev().filter(|line| line.contains("joins game")).filter_map(|line| {
        let (_, rest) = line.split_once(&joined)?;
        rest.split_once(']')?.0.parse().ok()
    });
    addresses.next()
}
