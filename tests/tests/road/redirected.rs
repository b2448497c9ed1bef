//! Networks that send packets to a pod by a program of theirs, as Cilium does: out of the veth, where the door sees
//! them, or into the pod past everything at the host's side, where it does not.

use std::process::Command;

use aya::programs::TcAttachType;
use dormouse_tests::{
    clients,
    packet_socket::mac,
    programs::{Attached, Program, Way, redirect},
    stand::{SOON, Stand},
    topology::{CLIENT, Node},
};

use crate::{
    LIMITS,
    case::{Road, seen_as},
};

/// From the uplink to the pod by a program; answers take the node's own way. Such networks do without the node's
/// conntrack, which would see half of each connection.
fn redirected(way: Way) -> (Node, Vec<(Program, Attached)>) {
    let node = Node::create(2).unwrap();
    let flushed = node.netns.run(|| Command::new("nft").args(["flush", "ruleset"]).status()).unwrap();
    assert!(flushed.success());
    let held = node
        .pods
        .iter()
        .map(|pod| {
            let interface = node.netns.run(|| nix::net::if_::if_nametoindex(pod.host_veth.as_str())).unwrap();
            let macs = [mac(&pod.netns, "eth0").unwrap(), mac(&node.netns, "cni0").unwrap()];
            let program = redirect(way, pod.v4, interface, macs).unwrap();
            let attached = program.attach(&node.netns, "up0", TcAttachType::Ingress).unwrap();
            (program, attached)
        })
        .collect();
    (node, held)
}

#[test]
fn packets_that_a_program_sends_out_of_the_veth_pass_the_door() {
    let (node, held) = redirected(Way::Out);
    let mut road = Road::new(Stand::prepare_on(node, LIMITS).unwrap());
    road.unfiltered = true;
    for player in 0..2 {
        let again = road.case(&format!("bpf_redirect, TCP {player}"), |at| at.tcp(at.v4(), 50_000));
        assert_eq!(again, 0);
        road.case(&format!("bpf_redirect, UDP {player}"), |at| at.udp(at.v4(), &[1, 1000, 1400]));
    }
    drop(held);
    road.finish();
}

/// `bpf_redirect_peer` takes packets past the door, and the datagram that proves the path, which the node itself
/// sends, does not. What the two ends of the veth have counted gives it away: the server stays awake, for a reason.
#[test]
fn a_road_past_the_door_is_refused() {
    let (node, held) = redirected(Way::Peer);
    let mut stand = Stand::prepare_on(node, LIMITS).unwrap();
    stand.start().unwrap();
    let to = stand.address(0);
    let answer = stand.node.client.run(|| clients::echo::tcp(to, b"hello", SOON)).unwrap();
    assert_eq!(clients::echo::seen_address(&answer).unwrap().ip(), seen_as(to));
    stand
        .wait_until("the reason is told", || {
            let asked = stand.daemon.sleep_once(&stand.pots[0].name, false);
            anyhow::ensure!(asked.is_err(), "it sleeps, and nobody can wake it");
            let why = format!("{:?}", stand.daemon.why(&stand.pots[0].name)?);
            anyhow::ensure!(why.contains("DoorNotOnPath"), "{why}");
            Ok(())
        })
        .unwrap();
    assert!(!stand.pots[0].cgroup.is_frozen().unwrap());
    // Its neighbour, whom nobody has called yet by that road, has nothing against it.
    assert_eq!(CLIENT[0], answer.local.ip());
    drop(held);
}
