//! Roads beside a new player's at the door: old connections, the pod's own loopback, the host's network.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use dormouse_api::status::Stage;
use dormouse_tests::{clients, daemon::QUICK, topology::NODE};

use crate::stand::{ADDRESS, NAME, Network, PORT, Plan, Plays, Stand, TIMEOUT};

/// As long as a wake would have taken, several times over.
const LONG_ENOUGH: Duration = Duration::from_secs(3);

fn echo(more: &str) -> Stand {
    let limits = format!("{QUICK}{more}");
    Stand::new(&Plan { limits: &limits, ..Plan::new(Plays::Echo, "generic-tcp") })
}

fn connect(stand: &Stand) -> TcpStream {
    let to = ADDRESS;
    let stream = stand.node.client.run(|| TcpStream::connect_timeout(&to, TIMEOUT)).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn say(stream: &mut TcpStream, word: &str) -> String {
    stream.write_all(word.as_bytes()).unwrap();
    hear(stream)
}

fn hear(stream: &mut TcpStream) -> String {
    let mut buffer = [0; 512];
    let len = stream.read(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..len]).into_owned()
}

#[test]
fn a_word_on_an_old_connection_wakes() {
    let stand = echo("old_links = \"wake\"\n");
    let mut old = connect(&stand);
    assert!(say(&mut old, "before").ends_with("before"));
    stand.doze();
    assert!(say(&mut old, "again").ends_with("again"));
    stand.wait_for(Stage::Awake);
}

#[test]
fn a_word_on_an_old_connection_passes_and_waits_where_the_profile_says_so() {
    let stand = echo("old_links = \"ignore\"\n");
    let mut old = connect(&stand);
    assert!(say(&mut old, "before").ends_with("before"));
    stand.doze();
    old.write_all(b"again").unwrap();
    thread::sleep(LONG_ENOUGH);
    stand.assert_never_woken();
    assert!(stand.cgroup.is_frozen().unwrap());
    stand.daemon.wake(NAME).unwrap();
    assert!(hear(&mut old).ends_with("again"));
}

#[test]
fn a_sidecar_wakes_over_loopback() {
    let stand = echo("loopback = \"wake\"\n");
    for lo in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
        stand.doze();
        let to = SocketAddr::new(lo, PORT);
        let answer = stand.node.pods[0].netns.run(|| clients::echo::tcp(to, b"sidecar", TIMEOUT));
        answer.unwrap_or_else(|error| panic!("{to}: {error:#}\n{}", stand.daemon.log()));
        stand.wait_for(Stage::Awake);
    }
}

#[test]
fn a_sidecar_is_ignored_where_the_profile_says_so() {
    let stand = echo("loopback = \"ignore\"\n");
    stand.doze();
    let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT);
    stand.node.pods[0].netns.run(|| clients::echo::tcp(to, b"sidecar", LONG_ENOUGH)).unwrap_err();
    stand.assert_never_woken();
    let to = ADDRESS;
    stand.node.client.run(|| clients::echo::tcp(to, b"player", TIMEOUT)).unwrap();
}

#[test]
fn the_first_payload_wakes_a_server_in_the_hosts_network() {
    let plan = Plan::new(Plays::Echo, "generic-tcp");
    let stand = Stand::new(&Plan { network: Network::Host, ..plan });
    let lo = IpAddr::from(Ipv4Addr::LOCALHOST);
    for (address, netns) in [
        (NODE[0], &stand.node.client),
        (NODE[1], &stand.node.client),
        (NODE[0], &stand.node.netns),
        (lo, &stand.node.netns),
    ] {
        stand.doze();
        let to = SocketAddr::new(address, PORT);
        let answer = netns.run(|| clients::echo::tcp(to, b"player", TIMEOUT));
        let answer = answer.unwrap_or_else(|error| panic!("{to}: {error:#}\n{}", stand.daemon.log()));
        assert_eq!(answer.retransmissions, 0, "{to}");
        stand.wait_for(Stage::Awake);
    }
}

#[test]
fn the_second_datagram_wakes_a_server_in_the_hosts_network() {
    let stand = Stand::new(&Plan { network: Network::Host, ..Plan::new(Plays::EchoUdp, "generic-udp") });
    stand.doze();
    stand.node.client.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(ADDRESS).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        socket.send(b"first").unwrap();
        thread::sleep(LONG_ENOUGH);
        assert!(stand.cgroup.is_frozen().unwrap(), "one datagram wakes nobody\n{}", stand.daemon.log());
        socket.send(b"second").unwrap();
        let mut buffer = [0; 512];
        for word in ["first", "second"] {
            let len = socket.recv(&mut buffer).unwrap();
            assert!(String::from_utf8_lossy(&buffer[..len]).ends_with(word));
        }
    });
    stand.wait_for(Stage::Awake);
}
