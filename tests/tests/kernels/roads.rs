//! Roads that miss the door are found out, and the server stays awake and reachable.

use std::{net::SocketAddr, time::Duration};

use dormouse_tests::{
    cgroup::Cgroup,
    clients,
    daemon::{Daemon, QUICK, ServerFile},
    netns::Netns,
    process::Place,
    servers::echo,
    topology::Node,
};

use crate::stand::{NAME, PORT, SOON, kernel};

/// A netkit has no veth to stand at; in the kernel since 6.7.
#[test]
fn a_server_behind_a_netkit_stays_awake_and_is_told_why() {
    if kernel() < (6, 7) {
        return println!("no netkit before Linux 6.7");
    }
    let node = Node::create(0).unwrap();
    let pod = Netns::create("pod").unwrap();
    node.netns.ip("link add host0 type netkit").unwrap();
    // The kernel names the other end.
    node.netns.ip(&format!("link set nk0 name eth0 netns {}", pod.name())).unwrap();
    for (netns, device, address, route) in [
        (&node.netns, "host0", "10.43.0.1/32", "10.43.0.2/32"),
        (&pod, "eth0", "10.43.0.2/32", "10.43.0.1/32"),
    ] {
        netns.ip(&format!("link set {device} up")).unwrap();
        netns.ip(&format!("addr add {address} dev {device}")).unwrap();
        netns.ip(&format!("route add {route} dev {device}")).unwrap();
    }
    pod.ip("route add default via 10.43.0.1").unwrap();
    node.client.ip("route add 10.43.0.0/24 via 192.0.2.1").unwrap();
    let cgroup = Cgroup::create("echo").unwrap();
    let _server = echo::start(Place::new(&pod, &cgroup), PORT).unwrap();
    let mut daemon = Daemon::prepare().unwrap();
    let ports = &["tcp/7100"];
    daemon
        .manage(&ServerFile { name: NAME, profile: "generic-tcp", cgroup: &cgroup, ports, limits: QUICK })
        .unwrap();
    daemon.start(&node.netns).unwrap();
    let told = |daemon: &Daemon| {
        daemon.why(NAME).is_ok_and(|why| why.reasons.iter().any(|reason| reason.contains("netkit")))
    };
    let until = std::time::Instant::now() + SOON;
    while !told(&daemon) {
        assert!(std::time::Instant::now() < until, "{:?}\n{}", daemon.why(NAME), daemon.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    daemon.sleep_once(NAME, false).unwrap_err();
    assert!(!cgroup.is_frozen().unwrap());
    let to: SocketAddr = "10.43.0.2:7100".parse().unwrap();
    node.client.run(|| clients::echo::tcp(to, b"hello", SOON)).unwrap();
}
