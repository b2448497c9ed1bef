//! Which of a server's sockets its players use, as far as that can be seen from outside.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use crate::config::{PortSpec, Transport};
use crate::discover::sockets::Sockets;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// Reachable from elsewhere.
    pub open: Vec<PortSpec>,
    /// Only over the server's own `lo`: RCON, a web panel.
    pub loopback: Vec<PortSpec>,
    /// UDP ports that the kernel chose: the server's own questions to others.
    pub passing: Vec<PortSpec>,
}

/// The ports from which the kernel takes one for a socket that asks for none (`ip_local_port_range`).
pub fn ephemeral() -> RangeInclusive<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut words = text.split_ascii_whitespace().map(str::parse);
    match (words.next(), words.next()) {
        (Some(Ok(low)), Some(Ok(high))) => low..=high,
        // The kernel's default (Documentation/networking/ip-sysctl.rst).
        _ => 32768..=60999,
    }
}

impl Ports {
    /// `usual`: ports that a game has by default, whatever the kernel's range.
    pub fn of(sockets: &Sockets, usual: &BTreeSet<PortSpec>, ephemeral: &RangeInclusive<u16>) -> Self {
        let tcp = sockets.listeners.iter().map(|listener| (Transport::Tcp, listener.local));
        let udp = sockets.udp.iter().filter(|socket| socket.remote.is_none());
        let udp = udp.map(|socket| (Transport::Udp, socket.local)).filter(|(_, local)| local.port() != 0);
        let (mut open, mut loopback, mut passing) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (transport, local) in tcp.chain(udp) {
            let port = PortSpec { transport, port: local.port() };
            let chosen =
                transport == Transport::Udp && ephemeral.contains(&port.port) && !usual.contains(&port);
            match () {
                () if is_loopback(local) => loopback.insert(port),
                () if chosen => passing.insert(port),
                () => open.insert(port),
            };
        }
        if open.is_empty() {
            open = std::mem::take(&mut passing);
        }
        loopback.retain(|port| !open.contains(port));
        let list = |set: BTreeSet<PortSpec>| set.into_iter().collect();
        Self { open: list(open), loopback: list(loopback), passing: list(passing) }
    }

    pub fn tcp(&self) -> Vec<u16> {
        self.numbers(Transport::Tcp)
    }

    pub fn udp(&self) -> Vec<u16> {
        self.numbers(Transport::Udp)
    }

    fn numbers(&self, transport: Transport) -> Vec<u16> {
        self.open.iter().filter(|port| port.transport == transport).map(|port| port.port).collect()
    }
}

fn is_loopback(local: SocketAddr) -> bool {
    local.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::sockets::{Listener, UdpSocket};

    fn listener(local: &str) -> Listener {
        Listener { local: local.parse().unwrap(), v6_only: false, accept_queue: 0, backlog: 128, inode: 1 }
    }

    fn udp(local: &str, remote: Option<&str>) -> UdpSocket {
        let remote = remote.map(|remote| remote.parse().unwrap());
        UdpSocket { local: local.parse().unwrap(), v6_only: false, remote, unread: 0, inode: 1 }
    }

    fn port(text: &str) -> PortSpec {
        let (transport, port) = text.split_once('/').unwrap();
        let transport = if transport == "tcp" { Transport::Tcp } else { Transport::Udp };
        PortSpec { transport, port: port.parse().unwrap() }
    }

    #[test]
    fn what_players_use_is_told_from_the_rest() {
        let sockets = Sockets {
            listeners: vec![listener("[::]:25565"), listener("0.0.0.0:25565"), listener("127.0.0.1:25575")],
            udp: vec![
                udp("0.0.0.0:30000", None),
                udp("0.0.0.0:34197", None),
                udp("0.0.0.0:40000", None),
                udp("0.0.0.0:5000", Some("192.0.2.1:53")),
            ],
            ..Sockets::default()
        };
        let usual = BTreeSet::from([port("udp/34197")]);
        let ports = Ports::of(&sockets, &usual, &(32768..=60999));
        assert_eq!(ports.open, [port("tcp/25565"), port("udp/30000"), port("udp/34197")]);
        assert_eq!(ports.loopback, [port("tcp/25575")]);
        assert_eq!(ports.passing, [port("udp/40000")]);
        assert_eq!((ports.tcp(), ports.udp()), (vec![25565], vec![30000, 34197]));
    }

    #[test]
    fn the_only_port_is_the_game_s_whatever_its_number() {
        let sockets = Sockets { udp: vec![udp("0.0.0.0:40000", None)], ..Sockets::default() };
        assert_eq!(Ports::of(&sockets, &BTreeSet::new(), &(32768..=60999)).open, [port("udp/40000")]);
        assert!(ephemeral().contains(&50000));
    }
}
