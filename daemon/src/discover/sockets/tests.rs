use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, TcpStream, UdpSocket as StdUdp};

use nix::sys::socket::SockProtocol;

use super::*;
use crate::discover::testing::{Cgroup, Namespace, Victim, eventually};

const SERVER: &str = "
import socket, time
v4 = socket.create_server(('127.0.0.1', 7001), backlog=16)
dual = socket.create_server(('::', 7002), family=socket.AF_INET6, backlog=8, dualstack_ipv6=True)
u4 = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u4.bind(('127.0.0.1', 7003))
u6 = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); u6.bind(('::1', 7003))
own = socket.create_connection(('127.0.0.1', 7001)); accepted, _ = v4.accept()
print('ready')
time.sleep(1000)
";

fn diag() -> Netlink {
    Netlink::open(SockProtocol::NetlinkSockDiag).unwrap()
}

fn at(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

#[test]
fn a_frozen_servers_queues_are_seen() {
    let namespace = Namespace::new();
    let cgroup = Cgroup::new("sockets");
    let server = Victim::python(SERVER, cgroup.path(), Some(&namespace));
    cgroup.freeze();
    let v6 = Ipv6Addr::LOCALHOST;
    namespace.inside(|| {
        let mut diag = diag();
        let mut clients = Vec::new();
        for _ in 0..5 {
            clients.push(TcpStream::connect(at(Ipv4Addr::LOCALHOST, 7001)).unwrap());
        }
        // One speaks, one goes away.
        clients[0].write_all(b"hello").unwrap();
        clients.pop();
        let mapped = TcpStream::connect(at(Ipv4Addr::LOCALHOST, 7002)).unwrap();
        let six = TcpStream::connect(at(v6, 7002)).unwrap();
        let udp = StdUdp::bind("[::1]:0").unwrap();
        udp.send_to(b"a datagram", at(v6, 7003)).unwrap();

        let inodes = inodes(&[server.pid()]).unwrap();
        let mut seen = Sockets::default();
        eventually("the kernel has queued it all", || {
            seen = list(&mut diag).unwrap().owned_by(&inodes);
            seen.connections.iter().any(|connection| connection.closed_by_remote)
                && seen.connections.iter().any(|connection| connection.unread == 5)
                && seen.listeners_on(&[7001]).all(|listener| listener.accept_queue == 5)
        });
        assert_eq!(seen.listeners.len(), 2, "{seen:?}");
        let v4 = seen.listeners_on(&[7001]).next().unwrap();
        assert_eq!((v4.local, v4.backlog), (at(Ipv4Addr::LOCALHOST, 7001), 16));
        let dual = seen.listeners_on(&[7002]).next().unwrap();
        assert_eq!((dual.accept_queue, dual.backlog, dual.v6_only), (2, 8, false));
        // Five that wait (one closed, nothing unread) and the one that the server accepted.
        let waiting: Vec<_> = seen.connections_on(&[7001]).collect();
        assert_eq!(waiting.len(), 6, "{waiting:?}");
        assert_eq!(waiting.iter().filter(|connection| connection.inode == 0).count(), 5);
        assert!(waiting.iter().all(|connection| !connection.closed_by_remote || connection.unread == 0));
        let heard = waiting.iter().find(|connection| connection.unread == 5).unwrap().heard.unwrap();
        assert!(heard.bytes == 5 && heard.silent < Duration::from_mins(1), "{heard:?}");
        let remotes: HashSet<_> = seen.connections_on(&[7002]).map(|connection| connection.remote).collect();
        assert_eq!(remotes, [mapped.local_addr().unwrap(), six.local_addr().unwrap()].into());
        assert_eq!(seen.udp.len(), 2);
        for socket in &seen.udp {
            assert_eq!(socket.unread > 0, socket.local == at(v6, 7003), "{socket:?}");
            assert_eq!(socket.remote, None);
        }
        let outbound = seen.outbound();
        assert_eq!(outbound.len(), 1, "{outbound:?}");
        assert_eq!(outbound[0].peer, OutboundPeer::Ourselves);
    });
}

#[test]
fn what_waits_in_an_mptcp_connection_is_seen() {
    const MPTCP: &str = "
import socket, time
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
listener.bind(('127.0.0.1', 7004)); listener.listen(8)
client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
client.connect(('127.0.0.1', 7004)); client.send(b'hello')
print('ready')
time.sleep(1000)
";
    let namespace = Namespace::new();
    let cgroup = Cgroup::new("mptcp");
    let server = Victim::python(MPTCP, cgroup.path(), Some(&namespace));
    let inodes = inodes(&[server.pid()]).unwrap();
    namespace.inside(|| {
        let mut diag = diag();
        eventually("the bytes have come in", || {
            let seen = list(&mut diag).unwrap().owned_by(&inodes);
            assert_eq!(seen.listeners.len(), 1);
            seen.connections_on(&[7004]).any(|connection| connection.unread > 0)
        });
    });
}

#[test]
fn in_the_hosts_namespace_only_the_servers_own_sockets_count() {
    let cgroup = Cgroup::new("host-sockets");
    let neighbour = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = neighbour.local_addr().unwrap().port();
    let program = format!(
        "import socket, time
listener = socket.create_server(('127.0.0.1', 0))
sidecar = socket.create_connection(('127.0.0.1', {port}))
print('ready')
time.sleep(1000)"
    );
    let server = Victim::python(&program, cgroup.path(), None);
    let all = list(&mut diag()).unwrap();
    assert!(all.listeners_on(&[port]).next().is_some());
    let own = all.owned_by(&inodes(&[server.pid()]).unwrap());
    assert_eq!(own.listeners.len(), 1);
    assert_eq!(own.connections.len(), 1, "{own:?}");
    let outbound = own.outbound();
    assert_eq!(outbound[0].remote, neighbour.local_addr().unwrap());
    assert_eq!(outbound[0].peer, OutboundPeer::Loopback);
}

#[test]
fn an_outbound_link_is_told_from_a_player() {
    let listener = |local: &str, v6_only| Listener {
        local: local.parse().unwrap(),
        v6_only,
        accept_queue: 0,
        backlog: 1,
        inode: 1,
    };
    let connection = |local: &str, remote: &str| Connection {
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        unread: 0,
        closed_by_remote: false,
        inode: 2,
        heard: None,
    };
    let mut sockets = Sockets {
        listeners: vec![listener("[::]:25565", false)],
        connections: vec![
            connection("10.0.0.2:25565", "192.0.2.1:5000"),
            connection("10.0.0.2:40000", "192.0.2.9:3306"),
        ],
        udp: Vec::new(),
    };
    let outbound = sockets.outbound();
    assert_eq!(outbound.len(), 1);
    assert_eq!(outbound[0].peer, OutboundPeer::Elsewhere);
    sockets.listeners = vec![listener("[::]:25565", true)];
    assert_eq!(sockets.outbound().len(), 2);
}

#[test]
fn the_dead_have_no_sockets() {
    assert_eq!(inodes(&[i32::MAX]).unwrap(), HashSet::new());
}

proptest::proptest! {
    #[test]
    fn no_message_makes_it_panic(body in proptest::collection::vec(proptest::num::u8::ANY, 0..120)) {
        let _ = Raw::read(&body);
    }
}
