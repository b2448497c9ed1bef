use super::*;
use crate::discover::testing::Namespace as TestNamespace;

/// Sockets in a server's namespace without the helper, which has tests of its own.
fn sockets(server: &TestNamespace) -> NamespaceSockets {
    let mut sockets = server.inside(|| NamespaceSockets::own().unwrap());
    sockets.namespace = Namespace::of(server.pid()).unwrap();
    sockets
}

/// The roads as a daemon in the node's namespace sees them.
fn roads_from(node: &TestNamespace, server: &TestNamespace) -> Roads {
    let mut sockets = sockets(server);
    node.inside(|| roads(&mut sockets, &mut NamespaceSockets::own().unwrap().route)).unwrap()
}

/// A veth on a bridge of the node, as a container has it.
fn plug(node: &TestNamespace, server: &TestNamespace, host_end: &str, inside: &str) {
    let pid = server.pid();
    node.ip(&format!("link add {host_end} type veth peer name {inside} netns {pid}"));
    node.ip(&format!("link set {host_end} master cni0 up"));
    server.ip(&format!("link set {inside} up"));
}

fn node_with_bridge() -> TestNamespace {
    let node = TestNamespace::new();
    node.ip("link add cni0 type bridge");
    node.ip("link set cni0 up");
    node
}

#[test]
fn the_host_end_of_a_veth_is_found_with_the_servers_addresses() {
    let (node, other, server) = (node_with_bridge(), TestNamespace::new(), TestNamespace::new());
    assert!(matches!(roads_from(&node, &server).all_through_doors(), Err(RoadError::NoRoad)));
    plug(&node, &other, "vother", "eth0");
    plug(&node, &server, "vserver", "eth0");
    server.ip("addr add 10.42.0.7/24 dev eth0");
    server.ip("addr add fd00:42::7/64 dev eth0 nodad");
    // Not roads: one that is down, one with both ends inside, and a bridge.
    server.ip("link add va type veth peer name vb");
    server.ip("link set va up");
    server.ip("link add br0 type bridge");
    server.ip("link set br0 up");

    let veths = roads_from(&node, &server).all_through_doors().unwrap();
    assert_eq!(veths.len(), 1, "{veths:?}");
    let veth = &veths[0];
    assert_eq!(veth.host_end.name, "vserver");
    assert_eq!(veth.inside.name, "eth0");
    for address in ["10.42.0.7", "fd00:42::7"] {
        assert!(veth.addresses.contains(&address.parse().unwrap()), "{veth:?}");
    }
    plug(&node, &server, "vsecond", "eth1");
    let names: Vec<_> = roads_from(&node, &server).veths.into_iter().map(|veth| veth.host_end.name).collect();
    assert_eq!(names, ["vserver", "vsecond"]);
}

#[test]
fn a_veth_made_anew_under_the_same_number_is_another_device() {
    let (node, server) = (node_with_bridge(), TestNamespace::new());
    let pid = server.pid();
    let plug = |address: &str| {
        node.ip(&format!(
            "link add vserver index 77 address {address} type veth peer name eth0 index 5 netns {pid}"
        ));
        server.ip("link set eth0 up");
    };
    plug("02:00:00:00:00:01");
    let host_end = roads_from(&node, &server).all_through_doors().unwrap().remove(0).host_end;
    assert_eq!(host_end.ifindex, 77);
    let is_there =
        || node.inside(|| host_end.is_still_there(&mut NamespaceSockets::own().unwrap().route)).unwrap();
    assert!(is_there());
    node.ip("link set vserver name renamed");
    assert!(is_there());
    node.ip("link del renamed");
    assert!(!is_there());
    plug("02:00:00:00:00:02");
    assert!(!is_there());
}

#[test]
fn a_veth_of_another_node_is_not_taken_for_ours() {
    let (node, elsewhere, ours, server) =
        (node_with_bridge(), TestNamespace::new(), TestNamespace::new(), TestNamespace::new());
    let veth = |node: &TestNamespace, server: &TestNamespace| {
        let pid = server.pid();
        node.ip(&format!("link add v77 index 77 type veth peer name eth0 index 5 netns {pid}"));
        server.ip("link set eth0 up");
    };
    // The same two numbers in another pair of namespaces: only the namespaces tell them apart.
    veth(&node, &ours);
    veth(&elsewhere, &server);
    assert_eq!(roads_from(&node, &ours).veths.len(), 1);
    let roads = roads_from(&node, &server);
    assert_eq!(roads.missed, [MissedRoad::PeerElsewhere { device: "eth0".to_owned() }]);
    assert!(roads.veths.is_empty());
}

#[test]
fn roads_that_miss_the_door_are_named() {
    let (node, server) = (node_with_bridge(), TestNamespace::new());
    plug(&node, &server, "vserver", "eth0");
    // A bridge's port can't carry one.
    node.ip("link add uplink type veth peer name wire");
    node.ip(&format!("link add mv0 link uplink netns {} type macvlan mode bridge", server.pid()));
    server.ip("link set mv0 up");
    server.ip("tuntap add dev tun0 mode tun");
    server.ip("link set tun0 up");
    let error = roads_from(&node, &server).all_through_doors().unwrap_err().to_string();
    assert!(error.contains("mv0 is a macvlan") && error.contains("tun0 is a tunnel"), "{error}");
}

#[test]
fn kinds_that_this_kernel_lacks_are_told_apart_too() {
    let device = |kind: Option<&str>, link_namespace| Device {
        index: 2,
        name: "eth0".to_owned(),
        kind: kind.map(str::to_owned),
        link: Some(9),
        link_namespace,
        up: true,
        ..Device::default()
    };
    let road = |kind, link| road(&device(kind, link), &[], Some(0));
    assert!(matches!(road(None, None), Some(Err(MissedRoad::Card { .. }))));
    assert!(matches!(road(Some("netkit"), Some(0)), Some(Err(MissedRoad::Netkit { .. }))));
    assert!(matches!(road(Some("ipvlan"), Some(0)), Some(Err(MissedRoad::Shared { .. }))));
    assert!(matches!(road(Some("vlan"), Some(0)), Some(Err(MissedRoad::Shared { .. }))));
    assert!(matches!(road(Some("can"), None), Some(Err(MissedRoad::Unknown { .. }))));
    assert_eq!(road(Some("vlan"), None), None);
    assert_eq!(super::road(&Device { up: false, ..device(None, None) }, &[], None), None);
}

proptest::proptest! {
    #[test]
    fn no_message_makes_it_panic(body: Vec<u8>) {
        let message = Message { kind: RTM_GETLINK, body };
        let _ = (device(&message), address(&message));
    }
}

#[test]
fn an_interface_that_is_not_there_has_no_name() {
    assert_eq!(super::name_of(1).unwrap(), "lo");
    assert_eq!(super::name_of(u32::MAX >> 1).unwrap_err().raw_os_error(), Some(libc::ENXIO));
}
