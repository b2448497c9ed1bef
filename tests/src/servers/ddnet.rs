//! DDNet: Debian's server, not registered anywhere.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::{Game, Server, own, program};
use crate::clients;
use crate::owner;
use crate::process::{Place, Process};

pub fn start(place: Place<'_>, port: u16) -> Result<Server> {
    let dir = owner::temp_dir("ddnet")?;
    let mut command = Command::new(program(&["/usr/games/DDNet-Server", "/usr/games/ddnet-server"])?);
    command.arg(format!("sv_port {port}; sv_register 0; sv_map Tutorial; sv_spamprotection 0"));
    command.current_dir(dir.path()).env("HOME", dir.path());
    let mut process = Process::spawn("ddnet", command, place)?;
    process.wait_until(Duration::from_mins(1), || {
        place.run(|| clients::ddnet::info(own(port), Duration::from_millis(500)))
    })?;
    Ok(Server { game: Game::DdNet, port, process, dir })
}

/// DDNet logs a join in two lines, the address first:
/// `player has entered the game. ClientID=0 addr=<{192.0.2.77:40000}> …`, `*** 'NAME' entered and joined the game`.
pub(super) fn joined_from(log: &str, name: &str) -> Option<IpAddr> {
    let joined = format!("'{name}' entered and joined the game");
    let before = &log[..log.rfind(&joined)?];
    let (_, address) = before.rsplit_once("addr=<{")?;
    let (address, _) = address.split_once("}>")?;
    address.parse::<SocketAddr>().ok().map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_address_of_the_right_player() {
        let log = "I server: player has entered the game. ClientID=0 addr=<{192.0.2.77:50328}> sixup=0\n\
                   I chat: *** 'a' entered and joined the game\n\
                   I server: player has entered the game. ClientID=1 addr=<{[2001:db8::77]:1}> sixup=0\n\
                   I chat: *** 'b' entered and joined the game\n";
        assert_eq!(joined_from(log, "a"), "192.0.2.77".parse().ok());
        assert_eq!(joined_from(log, "b"), "2001:db8::77".parse().ok());
        assert_eq!(joined_from(log, "c"), None);
    }
}
