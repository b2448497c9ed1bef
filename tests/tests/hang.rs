//! The door on a veth and off again, by both hooks: what was noted before is all that was changed.

use std::{path::PathBuf, process::Command};

use aya::programs::{SchedClassifier, TcAttachType, links::PinnedLink};
use dormouse_daemon::{
    door::{Door, TcHook},
    undo::Change,
};
use dormouse_tests::{daemon::mount_bpffs, owner, topology::BareVeth};

struct Hung {
    veth: BareVeth,
    door: Door,
    dir: PathBuf,
    ifindex: u32,
}

impl Hung {
    fn new(hook: TcHook) -> Self {
        mount_bpffs().unwrap();
        let veth = BareVeth::create().unwrap();
        let dir = PathBuf::from("/sys/fs/bpf").join(owner::unique("hang"));
        let door = Door::load_with(&dir, hook).unwrap();
        let ifindex = veth.client.run(|| nix::net::if_::if_nametoindex(&*veth.pod.host_veth)).unwrap();
        Self { veth, door, dir, ifindex }
    }

    /// Qdiscs, filters and programs of the veth.
    fn seen(&self) -> String {
        let name = &self.veth.pod.host_veth;
        self.veth.client.run(|| {
            let mut text = String::new();
            for words in [
                vec!["qdisc", "show", "dev", name],
                vec!["filter", "show", "dev", name, "egress"],
                vec!["filter", "show", "dev", name, "ingress"],
            ] {
                let output = Command::new("tc").args(words).output().unwrap();
                text += &String::from_utf8_lossy(&output.stdout);
            }
            for side in [TcAttachType::Egress, TcAttachType::Ingress] {
                // Kernels before 6.6 have no tcx, and then no programs there.
                let programs = SchedClassifier::query_tcx(name, side).map(|(_, programs)| programs);
                for program in programs.unwrap_or_default() {
                    text += program.name_as_str().unwrap_or("?");
                }
            }
            text
        })
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn has_tcx() -> bool {
    aya::util::KernelVersion::current().is_ok_and(|now| now >= aya::util::KernelVersion::new(6, 6, 0))
}

#[test]
fn a_door_comes_off_at_once_whoever_holds_its_links() {
    if !has_tcx() {
        return dormouse_tests::skip("no tcx on this kernel");
    }
    let mut hung = Hung::new(TcHook::Tcx);
    let before = hung.seen();
    let attachment = hung.veth.client.run(|| {
        let attachment = hung.door.plan(hung.ifindex).unwrap();
        hung.door.attach(&attachment).unwrap();
        attachment
    });
    let on = hung.seen();
    assert!(on.contains("door_tcx") && on.contains("answer"), "{on}");
    // As a daemon that hangs does.
    let held: Vec<_> = attachment.pins.iter().map(|pin| PinnedLink::from_pin(pin).unwrap()).collect();
    hung.door.detach(&attachment).unwrap();
    assert_eq!(hung.seen(), before);
    assert!(attachment.pins.iter().all(|pin| !pin.exists()));
    drop(held);
    hung.door.detach(&attachment).unwrap();
}

/// A kill between any two steps leaves nothing that the changes, noted before, do not put back.
#[test]
fn what_is_noted_before_covers_all_of_clsact() {
    let mut hung = Hung::new(TcHook::Clsact);
    let before = hung.seen();
    for _ in 0..2 {
        let (attachment, again) = hung.veth.client.run(|| {
            let attachment = hung.door.plan(hung.ifindex).unwrap();
            hung.door.attach(&attachment).unwrap();
            (attachment, hung.door.plan(hung.ifindex).unwrap())
        });
        let on = hung.seen();
        assert!(on.contains("clsact") && on.contains("door_clsact") && on.contains("answer"), "{on}");
        assert!(attachment.changes().iter().any(|change| matches!(change, Change::Clsact { .. })));
        assert!(
            !again.changes().iter().any(|change| matches!(change, Change::Clsact { .. })),
            "a qdisc that is there is not ours to remove"
        );
        hung.veth.client.run(|| hung.door.detach(&attachment)).unwrap();
        assert_eq!(hung.seen(), before);
    }
    // Somebody else's qdisc stays.
    let name = &hung.veth.pod.host_veth;
    hung.veth.client.run(|| {
        assert!(Command::new("tc").args(["qdisc", "add", "dev", name, "clsact"]).status().unwrap().success());
    });
    let before = hung.seen();
    hung.veth.client.run(|| {
        let attachment = hung.door.plan(hung.ifindex).unwrap();
        hung.door.attach(&attachment).unwrap();
        hung.door.detach(&attachment).unwrap();
    });
    assert_eq!(hung.seen(), before);
}
