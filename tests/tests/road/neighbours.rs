//! Who else stands on the road: translation by nft and by iptables, other programs and filters on the same hooks, a
//! limited bandwidth, clients of the node and of the pod itself.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use aya::{
    programs::TcAttachType,
    sys::{Stats, enable_stats},
};
use dormouse_tests::{
    netns::Netns,
    programs,
    stand::{PORT, SOON, Stand},
    topology::{BRIDGE, Firewall, NODE, Node, Road as Way, Transport},
};

use crate::{
    LIMITS,
    case::{POTS, Road, SentAgain, Sleeping, connect, converse, seen_as, udp_socket},
};

/// The ports of the node that lead to a pod: its number is added.
const HOST_PORT: u16 = 8100;
const NODE_PORT: u16 = 30_100;

fn published(firewall: Firewall) -> Road {
    let node = Node::create_with(POTS, firewall).unwrap();
    for pod in 0..POTS {
        for transport in [Transport::Tcp, Transport::Udp] {
            let number = u16::from(pod);
            node.publish(pod.into(), Way::HostPort, transport, HOST_PORT + number, PORT).unwrap();
            node.publish(pod.into(), Way::NodePort, transport, NODE_PORT + number, PORT).unwrap();
        }
    }
    Road::new(Stand::prepare_on(node, LIMITS).unwrap())
}

/// By every translation, from every side, in both families, over both transports.
fn every_way_in(mut road: Road) {
    for family in [0, 1] {
        let name = |what: &str| format!("{what}, {}", ["IPv4", "IPv6"][family]);
        let port = |at: &Sleeping<'_>, base: u16| SocketAddr::new(NODE[family], base + at.index as u16);
        let again = road.case(&name("hostPort, TCP"), |at| at.tcp(port(at, HOST_PORT), 50_000));
        assert_eq!(again, 0);
        road.case(&name("hostPort, UDP"), |at| at.udp(port(at, HOST_PORT), &[10, 1400]));
        // The node's address is all that the server can see.
        let again = road.case(&name("NodePort, TCP"), |at| {
            let stream = at.connect(port(at, NODE_PORT))?;
            at.converse(&stream, 50_000, BRIDGE[family])
        });
        assert_eq!(again, 0);
        road.case(&name("NodePort, UDP"), |at| {
            let to = port(at, NODE_PORT);
            let socket = at.client(|| udp_socket(to))?;
            at.datagrams(&socket, &[10, 1400], None)
        });
        road.case(&name("no translation, TCP"), |at| at.tcp(at.addresses()[family], 50_000));
        road.case(&name("a client of the node, TCP"), |at| {
            let to = at.addresses()[family];
            host_local(at, to, Some(BRIDGE[family]))
        });
        road.case(&name("a client of the node by the hostPort, TCP"), |at| {
            let to = port(at, HOST_PORT);
            host_local(at, to, None)
        });
        road.case(&name("a client of the node, UDP"), |at| {
            let to = at.addresses()[family];
            let socket = at.stand.node.netns.run(|| udp_socket(to))?;
            at.datagrams(&socket, &[10, 1400], Some(BRIDGE[family]))
        });
        road.case(&name("a sidecar over the pod's loopback"), |at| {
            let lo: IpAddr =
                if family == 0 { Ipv4Addr::LOCALHOST.into() } else { [0, 0, 0, 0, 0, 0, 0, 1].into() };
            let stream = at.stand.node.pods[at.index].netns.run(|| connect(SocketAddr::new(lo, PORT)))?;
            at.converse(&stream, 1000, lo)
        });
        road.case(&name("another pod on the bridge"), |at| {
            let other = &at.stand.node.pods[(at.index + 1) % at.stand.pots.len()];
            let to = at.addresses()[family];
            let stream = other.netns.run(|| connect(to))?;
            at.converse(&stream, 1000, other.addresses()[family])
        });
    }
    // The echo server has one socket for both families: an IPv4 client is `::ffff:a.b.c.d` there.
    road.case("an old connection by a mapped address", |at| {
        at.stand.daemon.wake(&at.stand.pots[at.index].name)?;
        let stream = at.connect(at.v4())?;
        at.converse(&stream, 1000, seen_as(at.v4()))?;
        at.stand.doze(at.index)?;
        at.converse(&stream, 1000, seen_as(at.v4()))
    });
    road.finish();
}

/// A sender of the node itself learns at once what becomes of a packet: one that is parked must count as sent.
fn host_local(at: &mut Sleeping<'_>, to: SocketAddr, seen: Option<IpAddr>) -> Result<()> {
    let node = &at.stand.node.netns;
    let before = SentAgain::of(node)?;
    let stream = node.run(|| connect(to))?;
    converse(&stream, &at.chance.letters(50_000), seen)?;
    let again = SentAgain::of(node)?.since(&before);
    ensure!(again == 0, "{again} segments sent again");
    Ok(())
}

#[test]
fn translation_by_nft_and_every_client() {
    every_way_in(published(Firewall::Nft));
}

#[test]
fn translation_by_iptables_and_every_client() {
    every_way_in(published(Firewall::Iptables));
}

fn tc(netns: &Netns, arguments: &str) -> Result<String> {
    let out = netns.run(|| Command::new("tc").args(arguments.split(' ')).output()).context("run tc")?;
    ensure!(out.status.success(), "tc {arguments}: {}", String::from_utf8_lossy(&out.stderr).trim());
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Programs and filters that others put on the same interface, before the door came and after it: each sees every
/// packet, also those that were parked, when they are given back.
#[test]
fn others_on_the_same_hook_see_every_packet() {
    let node = Node::create(POTS).unwrap();
    let _stats = enable_stats(Stats::RunTime).unwrap();
    let before = programs::counter().unwrap();
    let held: Vec<_> = node
        .pods
        .iter()
        .flat_map(|pod| {
            [TcAttachType::Ingress, TcAttachType::Egress]
                .map(|side| before.attach(&node.netns, &pod.host_veth, side).unwrap())
        })
        .collect();
    let mut road = Road::new(Stand::prepare_on(node, LIMITS).unwrap());
    let after = programs::counter().unwrap();
    let node = &road.stand.node;
    let held_after: Vec<_> = node
        .pods
        .iter()
        .map(|pod| after.attach(&node.netns, &pod.host_veth, TcAttachType::Egress).unwrap())
        .collect();
    // As the CNI bandwidth plugin and older CNIs have it: a clsact qdisc with a filter of its own.
    let clsact = programs::counter().unwrap();
    for pod in &node.pods {
        let veth = &pod.host_veth;
        let added = tc(&node.netns, &format!("qdisc add dev {veth} clsact"));
        // The door's own, where the kernel has no tcx.
        assert!(added.is_ok() || added.unwrap_err().to_string().contains("Exclusivity flag"));
        tc(
            &node.netns,
            &format!("filter add dev {veth} egress bpf da object-pinned {}", clsact.pin().display()),
        )
        .unwrap();
    }
    for (name, transport) in [("TCP", Transport::Tcp), ("UDP", Transport::Udp)] {
        let counts = || [&before, &after, &clsact].map(|program| program.runs().unwrap());
        let then = counts();
        road.case(&format!("others' programs, {name}"), |at| match transport {
            Transport::Tcp => at.tcp(at.v4(), 5000),
            Transport::Udp => at.udp(at.v4(), &[1, 2, 3, 4, 5]),
        });
        let now = counts();
        // UDP: five datagrams toward the server, and five from it for who stands at both sides.
        let least = match transport {
            Transport::Tcp => [6, 3, 3],
            Transport::Udp => [10, 5, 5],
        };
        for (who, ((now, then), least)) in
            ["tcx, before the door", "tcx, after it", "clsact"].iter().zip(now.iter().zip(then).zip(least))
        {
            assert!(now - then >= least, "{name}: {who} saw {} of at least {least} packets", now - then);
        }
    }
    drop((held, held_after));
    road.finish();
}

/// A token bucket at the veth, as the CNI bandwidth plugin puts it there: it stands behind the door, and what is
/// given back waits in it like everything else.
#[test]
fn a_limited_bandwidth_only_takes_its_time() {
    let node = Node::create(POTS).unwrap();
    for pod in &node.pods {
        let qdisc = format!("qdisc add dev {} root tbf rate 20mbit burst 32kb latency 400ms", pod.host_veth);
        tc(&node.netns, &qdisc).unwrap();
    }
    let mut road = Road::new(Stand::prepare_on(node, LIMITS).unwrap());
    for family in [0, 1] {
        let again = road.case("limited, TCP", |at| at.tcp(at.addresses()[family], 200_000));
        assert_eq!(again, 0);
        road.case("limited, UDP", |at| at.udp(at.addresses()[family], &[1400; 12]));
        road.case("limited, a burst behind a held datagram", |at| {
            let to = at.addresses()[family];
            let other = at.client(|| udp_socket(to))?;
            other.send(b"HELD")?;
            let stream = at.connect(to)?;
            at.converse(&stream, 14_000, seen_as(to))?;
            other.set_read_timeout(Some(SOON))?;
            crate::case::expect_datagram(&other, b"HELD", Some(seen_as(to)))
        });
    }
    road.finish();
}
