//! The two ways to hang the door on a veth: the kernel chooses by its version, and both must hold.

use std::{net::IpAddr, path::PathBuf, process::Command};

use dormouse_daemon::door::{Door, TcHook};
use dormouse_tests::{daemon::mount_bpffs, owner, topology::Node};

use crate::stand::kernel;

/// A folder for pins that goes away, with the links in it.
struct Pins(PathBuf);

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn door_is_on_the_path(hook: TcHook) {
    mount_bpffs().unwrap();
    let node = Node::create(1).unwrap();
    let pod = &node.pods[0];
    node.netns.run(|| {
        let pins = Pins(PathBuf::from("/sys/fs/bpf").join(owner::unique("door")));
        let mut door = Door::load_with(&pins.0, hook).unwrap();
        let ifindex = nix::net::if_::if_nametoindex(&*pod.host_veth).unwrap();
        let attachment = door.plan(ifindex).unwrap();
        door.attach(&attachment).unwrap();
        door.prove_path(0, ifindex, IpAddr::V4(pod.v4)).unwrap();
        door.prove_path(0, ifindex, IpAddr::V6(pod.v6)).unwrap();
        let filters = Command::new("tc").args(["filter", "show", "dev", &pod.host_veth, "egress"]).output();
        let filters = String::from_utf8_lossy(&filters.unwrap().stdout).into_owned();
        assert_eq!(filters.contains("bpf"), hook == TcHook::Clsact, "{filters}");
        door.detach(&attachment).unwrap();
        door.prove_path(0, ifindex, IpAddr::V4(pod.v4)).unwrap_err();
    });
}

#[test]
fn a_filter_on_clsact_is_on_the_path() {
    door_is_on_the_path(TcHook::Clsact);
}

#[test]
fn a_link_on_tcx_is_on_the_path() {
    if kernel() < (6, 6) {
        return println!("no tcx before Linux 6.6");
    }
    door_is_on_the_path(TcHook::Tcx);
}
