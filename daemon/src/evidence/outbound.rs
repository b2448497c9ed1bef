//! Connections that the server made itself: their other ends may not bear that it falls silent.

use std::collections::BTreeSet;

use crate::config::{PortSpec, Server, Transport};
use crate::discover::sockets::{OutboundPeer, Sockets};
use crate::stage::Outbound;

/// Peers named in a reason; more help nobody.
const NAMED: usize = 3;

/// Of a server's own sockets, what forbids a freeze. A neighbour on the loopback counts like any other peer:
/// a database doesn't bear more for being near.
pub fn look(server: &Server, sockets: &Sockets) -> Outbound {
    let links = sockets.outbound();
    let peers: Vec<_> = links.iter().filter(|link| link.peer != OutboundPeer::Ourselves).collect();
    let unborne: BTreeSet<_> = peers
        .iter()
        .filter(|link| {
            !server.bears_outbound(PortSpec { transport: Transport::Tcp, port: link.remote.port() })
        })
        .map(|link| link.remote)
        .collect();
    if peers.is_empty() {
        return Outbound::None;
    }
    if unborne.is_empty() {
        return Outbound::Harmless;
    }
    let named: Vec<_> = unborne.iter().take(NAMED).map(ToString::to_string).collect();
    let more = match unborne.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Outbound::Found { to: named.join(", ") + &more }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::sockets::{Connection, Listener};
    use crate::evidence::testing::server;

    fn sockets(links: &[(&str, &str)]) -> Sockets {
        let listener = Listener {
            local: "0.0.0.0:25565".parse().unwrap(),
            v6_only: false,
            accept_queue: 0,
            backlog: 128,
            inode: 1,
        };
        let connection = |&(local, remote): &(&str, &str)| Connection {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            unread: 0,
            closed_by_remote: false,
            inode: 2,
            heard: None,
        };
        Sockets {
            listeners: vec![listener],
            connections: links.iter().map(connection).collect(),
            udp: Vec::new(),
        }
    }

    #[test]
    fn players_and_its_own_ends_are_no_links() {
        let server = server("harmless_outbound = [\"tcp/3306\"]", "");
        let look = |links| look(&server, &sockets(links));
        assert_eq!(look(&[]), Outbound::None);
        assert_eq!(look(&[("10.0.0.2:25565", "192.0.2.1:50000")]), Outbound::None);
        assert_eq!(look(&[("127.0.0.1:5", "127.0.0.1:6"), ("127.0.0.1:6", "127.0.0.1:5")]), Outbound::None);
        assert_eq!(look(&[("10.0.0.2:40000", "192.0.2.1:3306")]), Outbound::Harmless);
        let found = |to: &str| Outbound::Found { to: to.to_owned() };
        assert_eq!(look(&[("127.0.0.1:40000", "127.0.0.1:6379")]), found("127.0.0.1:6379"));
        assert_eq!(
            look(&[("10.0.0.2:40000", "192.0.2.1:3306"), ("10.0.0.2:40001", "192.0.2.1:443")]),
            found("192.0.2.1:443")
        );
        let many: Vec<_> = ["192.0.2.1:1", "192.0.2.1:2", "192.0.2.1:3", "192.0.2.1:4", "192.0.2.1:4"]
            .map(|remote| ("10.0.0.2:40000", remote))
            .to_vec();
        assert_eq!(look(&many), found("192.0.2.1:1, 192.0.2.1:2, 192.0.2.1:3 and 1 more"));
    }

    #[test]
    fn an_operator_may_vouch_for_all_of_them() {
        let server = server("", "[assert]\noutbound = { value = \"harmless\", reason = \"tried\" }");
        assert_eq!(look(&server, &sockets(&[("10.0.0.2:40000", "192.0.2.1:443")])), Outbound::Harmless);
    }
}
