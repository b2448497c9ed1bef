//! The bench itself: topologies come up, every real server is reached by every road, everything is gone afterwards.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dormouse_tests::clients::{self, scan};
use dormouse_tests::process::Place;
use dormouse_tests::servers::{self, Game, Server, java};
use dormouse_tests::topology::{BRIDGE, BareVeth, CLIENT, Invalid, NODE, Node, Road, Transport};
use dormouse_tests::{cgroup, cgroup::Cgroup, netns};

const TIMEOUT: Duration = Duration::from_secs(10);
/// Ports of the node: as a host port, and as a node port.
const HOST_PORT: u16 = 25000;
const NODE_PORT: u16 = 31000;

/// One pod with one server on a node like k3s's, published both ways. Fields drop in order: the server before
/// its cgroup and its namespaces.
struct Stand {
    server: Server,
    cgroup: Cgroup,
    node: Node,
}

impl Stand {
    fn new(start: impl FnOnce(Place<'_>) -> Result<Server>) -> Result<Self> {
        let began = Instant::now();
        let node = Node::create(1)?;
        let cgroup = Cgroup::create("server")?;
        let built = began.elapsed();
        let started = Instant::now();
        let server = start(Place::new(&node.pods[0].netns, &cgroup))?;
        println!("topology {built:.0?}, {:?} answers after {:.0?}", server.game, started.elapsed());
        for transport in [Transport::Tcp, Transport::Udp] {
            node.publish(0, Road::HostPort, transport, HOST_PORT, server.port)?;
            node.publish(0, Road::NodePort, transport, NODE_PORT, server.port)?;
        }
        Ok(Self { server, cgroup, node })
    }

    /// Every road from the client to the server: direct, host port and node port, in both families.
    fn roads(&self) -> Vec<SocketAddr> {
        let pod = self.node.pods[0].addresses().map(|ip| SocketAddr::new(ip, self.server.port));
        let published =
            NODE.into_iter().flat_map(|ip| [HOST_PORT, NODE_PORT].map(|port| SocketAddr::new(ip, port)));
        pod.into_iter().chain(published).collect()
    }

    fn ask_all<T: Send>(
        &self,
        what: &str,
        ask: impl Fn(SocketAddr) -> Result<T> + Sync,
    ) -> Result<Vec<(SocketAddr, T)>> {
        let mut answers = Vec::new();
        for to in self.roads() {
            let began = Instant::now();
            let answer = self.node.client.run(|| ask(to)).with_context(|| format!("{what} to {to}"))?;
            println!("{what} to {to}: {:.1?}", began.elapsed());
            answers.push((to, answer));
        }
        Ok(answers)
    }

    /// Ends the stand and looks that nothing of it is left.
    fn take_down(self) -> Result<()> {
        assert_eq!(self.node.invalid_packets()?, Invalid { forwarded: 0, local: 0 });
        let (name, path) = (self.node.netns.name().to_owned(), self.cgroup.path().to_owned());
        let (pid, dir) = (self.server.process.pid(), self.server.dir().to_owned());
        println!("memory: {} MiB", self.cgroup.memory()?.resident >> 20);
        drop(self);
        assert!(!netns::mine().contains(&name), "{name} is still there");
        assert!(!cgroup::mine().contains(&path), "{} is still there", path.display());
        assert!(!dir.exists(), "{} is still there", dir.display());
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "process {pid} still runs");
        Ok(())
    }
}

/// The address that a server must see for a client that came by `to`.
fn expected_source(to: SocketAddr) -> IpAddr {
    let family = usize::from(to.is_ipv6());
    if to.port() == NODE_PORT { BRIDGE[family] } else { CLIENT[family] }
}

#[test]
fn echo_by_every_road() {
    let stand = Stand::new(|place| servers::echo::start(place, 7000)).unwrap();
    for (to, answer) in stand.ask_all("TCP echo", |to| clients::echo::tcp(to, b"hello", TIMEOUT)).unwrap() {
        assert_eq!(
            clients::echo::seen_address(&answer).unwrap().ip(),
            expected_source(to),
            "source behind {to}"
        );
        assert!(answer.reply.ends_with(b"\nhello"));
        assert_eq!(answer.retransmissions, 0);
    }
    for (to, answer) in stand.ask_all("UDP echo", |to| clients::echo::udp(to, b"hello", TIMEOUT)).unwrap() {
        assert_eq!(
            clients::echo::seen_address(&answer).unwrap().ip(),
            expected_source(to),
            "source behind {to}"
        );
    }
    // A client on the node itself is led there too.
    let local = SocketAddr::new(NODE[0], HOST_PORT);
    stand.node.netns.run(|| clients::echo::tcp(local, b"hello", TIMEOUT)).unwrap();
    stand.take_down().unwrap();
}

#[test]
fn pods_reach_each_other_over_the_bridge_and_through_netfilter() {
    let node = Node::create(2).unwrap();
    if !node.bridge_netfilter {
        return dormouse_tests::skip("this kernel has no br_netfilter: bridged packets don't pass conntrack");
    }
    let on = node.netns.read("/proc/sys/net/bridge/bridge-nf-call-iptables").unwrap();
    assert_eq!(on.trim(), "1");
    let cgroup = Cgroup::create("server").unwrap();
    let _server = servers::echo::start(Place::new(&node.pods[0].netns, &cgroup), 7000).unwrap();
    for (ip, from) in node.pods[0].addresses().into_iter().zip(node.pods[1].addresses()) {
        let answer =
            node.pods[1].netns.run(|| clients::echo::tcp(SocketAddr::new(ip, 7000), b"hello", TIMEOUT));
        assert_eq!(clients::echo::seen_address(&answer.unwrap()).unwrap().ip(), from);
    }
    assert_eq!(node.invalid_packets().unwrap(), Invalid { forwarded: 0, local: 0 });
}

#[test]
fn echo_over_a_bare_veth() {
    let bare = BareVeth::create().unwrap();
    let cgroup = Cgroup::create("server").unwrap();
    let _server = servers::echo::start(Place::new(&bare.pod.netns, &cgroup), 7000).unwrap();
    for ip in bare.pod.addresses() {
        let to = SocketAddr::new(ip, 7000);
        bare.client.run(|| clients::echo::tcp(to, b"hello", TIMEOUT)).unwrap();
        bare.client.run(|| clients::echo::udp(to, b"hello", TIMEOUT)).unwrap();
    }
}

#[test]
fn a_frozen_server_is_silent_and_answers_after_the_thaw() {
    let stand = Stand::new(|place| servers::echo::start_with(place, 7000, Some("welcome"))).unwrap();
    let to = SocketAddr::new(NODE[0], HOST_PORT);
    stand.cgroup.freeze(true).unwrap();
    assert!(stand.cgroup.is_frozen().unwrap());
    let short = Duration::from_millis(200);
    stand.node.client.run(|| clients::echo::udp(to, b"hello", short)).unwrap_err();
    // Its kernel still completes handshakes.
    stand.node.client.run(|| scan::connect(to, TIMEOUT)).unwrap();
    stand.cgroup.freeze(false).unwrap();
    let greeted = stand.node.client.run(|| clients::echo::tcp(to, b"hello", TIMEOUT)).unwrap();
    assert!(greeted.reply.starts_with(b"welcome\n"));
    stand.take_down().unwrap();
}

#[test]
fn dropping_a_frozen_stand_leaves_nothing() {
    let stand = Stand::new(|place| servers::echo::start(place, 7000)).unwrap();
    stand.cgroup.freeze(true).unwrap();
    stand.take_down().unwrap();
}

#[test]
fn minecraft_answers_and_lets_players_in() {
    let mut stand = Stand::new(|place| servers::minecraft::start(place, 25565)).unwrap();
    for (to, answer) in stand.ask_all("status", |to| clients::minecraft::status(to, TIMEOUT)).unwrap() {
        let status: serde_json::Value = serde_json::from_slice(&answer.reply).unwrap();
        assert_eq!(status["version"]["protocol"], servers::minecraft::PROTOCOL, "status by {to}");
    }
    for (to, answer) in stand.ask_all("login", |to| clients::minecraft::login(to, "raw", TIMEOUT)).unwrap() {
        println!(
            "login by {to}: first reply {:.1?}, {} retransmissions",
            answer.first_reply, answer.retransmissions
        );
    }
    for (index, ip) in NODE.into_iter().enumerate() {
        let (to, name) = (SocketAddr::new(ip, HOST_PORT), format!("bot{index}"));
        let place = Place::netns(&stand.node.client);
        let join = clients::node::minecraft_join(place, to, &name, Duration::ZERO).unwrap();
        println!("mineflayer by {to}: {join:.1?}");
        assert_eq!(stand.server.seen_address(&name).unwrap(), CLIENT[index]);
    }
    stand.take_down().unwrap();
}

#[test]
fn luanti_answers_and_lets_players_in() {
    let mut stand = Stand::new(|place| servers::luanti::start(place, 30000)).unwrap();
    stand.ask_all("ping", |to| clients::luanti::ping(to, TIMEOUT)).unwrap();
    for (index, to) in stand.roads().into_iter().enumerate() {
        let name = format!("bot{index}");
        let join = stand.node.client.run(|| clients::luanti::join(to, &name, TIMEOUT)).unwrap();
        println!("join by {to}: {join:.1?}");
        assert_eq!(stand.server.seen_address(&name).unwrap(), expected_source(to), "{name} by {to}");
    }
    stand.take_down().unwrap();
}

#[test]
fn ddnet_answers_and_lets_players_in() {
    let mut stand = Stand::new(|place| servers::ddnet::start(place, 8303)).unwrap();
    stand.ask_all("info", |to| clients::ddnet::info(to, TIMEOUT)).unwrap();
    let to = SocketAddr::new(NODE[0], HOST_PORT);
    let place = Place::netns(&stand.node.client);
    let join = clients::node::ddnet_join(place, to, "bot", Duration::ZERO).unwrap();
    println!("join by {to}: {join:.1?}");
    assert_eq!(stand.server.seen_address("bot").unwrap(), CLIENT[0]);
    stand.take_down().unwrap();
}

#[test]
fn a_jvm_heap_answers() {
    let stand = Stand::new(|place| java::heap(place, 7001, 128, java::Objects::Large)).unwrap();
    assert!(stand.cgroup.memory().unwrap().resident > 128 << 20);
    stand.ask_all("line", |to| clients::line::ask(to, "touch 16", TIMEOUT)).unwrap();
    stand.take_down().unwrap();
}

#[test]
fn the_tick_watchdog_ends_a_server_that_was_frozen_for_too_long() {
    let mut stand = Stand::new(|place| java::tick(place, 25565, 500)).unwrap();
    stand.ask_all("login", |to| clients::minecraft::login(to, "raw", TIMEOUT)).unwrap();
    assert_eq!(stand.server.seen_address("raw").unwrap(), BRIDGE[1]);
    // What a fooled daemon would read: the running server has read the true setting already.
    java::set_max_tick_time(stand.server.dir(), 25565, -1).unwrap();
    stand.cgroup.freeze(true).unwrap();
    std::thread::sleep(Duration::from_millis(800));
    stand.cgroup.freeze(false).unwrap();
    let status = stand.server.process.wait(TIMEOUT).unwrap();
    assert_eq!(status.code(), Some(java::WATCHDOG_EXIT));
}

#[test]
fn without_its_watchdog_the_tick_server_survives_the_freeze() {
    let stand = Stand::new(|place| java::tick(place, 25565, -1)).unwrap();
    stand.cgroup.freeze(true).unwrap();
    std::thread::sleep(Duration::from_millis(800));
    stand.cgroup.freeze(false).unwrap();
    stand.ask_all("status", |to| clients::minecraft::status(to, TIMEOUT)).unwrap();
    stand.take_down().unwrap();
}

#[test]
fn scanners_get_what_a_real_server_gives_them() {
    let stand = Stand::new(|place| servers::minecraft::start(place, 25565)).unwrap();
    assert_eq!(stand.server.game, Game::Minecraft);
    let to = SocketAddr::new(NODE[0], HOST_PORT);
    let IpAddr::V4(client) = CLIENT[0] else { unreachable!("the client's first address is IPv4") };
    stand.node.client.run(|| {
        assert_eq!(scan::syn(client, to, 40001, TIMEOUT).unwrap(), scan::Fate::Answered);
        let closed = SocketAddr::new(NODE[0], 9);
        assert_eq!(scan::syn(client, closed, 40002, TIMEOUT).unwrap(), scan::Fate::Closed);
        scan::connect(to, TIMEOUT).unwrap();
        for probe in [scan::Probe::Http, scan::Probe::Tls, scan::Probe::Random(1)] {
            let fate = scan::tcp_probe(to, probe, Duration::from_millis(300)).unwrap();
            println!("{probe:?}: {fate:?}");
            assert_ne!(fate, scan::Fate::Answered, "{probe:?}");
            scan::udp_probe(to, probe).unwrap();
        }
    });
    stand.take_down().unwrap();
}
