//! The guard's own process on the real kernel. Needs root, a cgroup v2 mount, and iproute2.

mod bpf;
mod node;

use std::{num::NonZeroU32, os::unix::fs::MetadataExt as _, path::Path, process::Command};

use dormouse_daemon::{
    act::doze,
    undo::{Change, Direction, UndoLog, logs},
};
use node::{Door, Node, Server, in_own_namespaces, wait_until};

fn frozen(servers: &[Server]) -> Vec<bool> {
    servers.iter().map(Server::is_frozen).collect()
}

#[test]
fn while_stale_it_wakes_exactly_who_is_knocked_on() {
    in_own_namespaces(|| {
        let node = Node::new();
        let mut door = Door::new(&node);
        door.stale();
        let servers: Vec<Server> = (0..3).map(|slot| Server::asleep(&node, slot)).collect();
        let guard = node.guard(&["--guard-limit", "1000d"]);
        guard.wait_for_line("heartbeat is stale");
        door.knock(1);
        wait_until("the one knocked on runs", || !servers[1].is_frozen());
        assert_eq!(frozen(&servers), [true, false, true]);
        door.knock(0);
        wait_until("the next one runs", || !servers[0].is_frozen());
        assert_eq!(frozen(&servers), [false, false, true]);
        assert!(guard.terminate().success());
        assert_eq!(frozen(&servers), [false; 3], "SIGTERM under a stale heartbeat wakes all");
        assert_eq!(logs(&node.run_dir()).unwrap().len(), 3, "what to undo is the daemon's or off's to mark");
    });
}

/// A root without it cannot lower its own score; the guard then says so and guards all the same.
const CAP_SYS_RESOURCE: u64 = 1 << 24;

fn capabilities(line: &str) -> u64 {
    u64::from_str_radix(line.split_ascii_whitespace().next_back().unwrap(), 16).unwrap()
}

#[test]
fn while_the_daemon_lives_it_wakes_nobody() {
    in_own_namespaces(|| {
        let node = Node::new();
        let mut door = Door::new(&node);
        door.alive();
        let servers: Vec<Server> = (0..2).map(|slot| Server::asleep(&node, slot)).collect();
        door.knock(0);
        let guard = node.guard(&[]);
        guard.wait_for_line("heartbeat is fresh");
        let status = |field: &str| {
            let text = std::fs::read_to_string(format!("/proc/{}/status", guard.pid())).unwrap();
            text.lines().find(|line| line.starts_with(field)).unwrap().to_owned()
        };
        assert!(!status("VmLck").ends_with(" 0 kB"), "its memory is locked");
        let oom = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", guard.pid())).unwrap();
        let may_protect_itself = capabilities(&status("CapEff")) & CAP_SYS_RESOURCE != 0;
        let inherited = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        assert_eq!(oom.trim(), if may_protect_itself { "-999" } else { inherited.trim() });
        assert!(guard.terminate().success());
        assert_eq!(frozen(&servers), [true; 2], "SIGTERM with a live heartbeat wakes nobody");
    });
}

#[test]
fn it_steps_in_when_the_heart_stops_and_back_when_it_beats_again() {
    in_own_namespaces(|| {
        let node = Node::new();
        let mut door = Door::new(&node);
        door.alive();
        let servers = [Server::asleep(&node, 0)];
        let guard = node.guard(&["--guard-limit", "1000d"]);
        guard.wait_for_line("heartbeat is fresh");
        door.stale();
        guard.wait_for_line("heartbeat is stale");
        door.alive();
        guard.wait_for_line("heartbeat is fresh");
        door.knock(0);
        assert!(guard.terminate().success());
        assert_eq!(frozen(&servers), [true]);
    });
}

#[test]
fn new_maps_of_a_restarted_daemon_are_found() {
    in_own_namespaces(|| {
        let node = Node::new();
        let mut door = Door::new(&node);
        door.stale();
        let guard = node.guard(&["--guard-limit", "1000d"]);
        guard.wait_for_line("heartbeat is stale");
        std::fs::remove_dir_all(node.pins()).unwrap();
        let mut door = Door::new(&node);
        door.alive();
        guard.wait_for_line("heartbeat is fresh");
        assert!(guard.terminate().success());
    });
}

#[test]
fn after_the_limit_it_wakes_all() {
    in_own_namespaces(|| {
        let node = Node::new();
        Door::new(&node).stale();
        let servers: Vec<Server> = (0..3).map(|slot| Server::asleep(&node, slot)).collect();
        let _guard = node.guard(&["--guard-limit", "1s"]);
        wait_until("all run", || frozen(&servers) == [false; 3]);
    });
}

#[test]
fn without_pins_it_wakes_all() {
    in_own_namespaces(|| {
        let node = Node::new();
        let servers: Vec<Server> = (0..2).map(|slot| Server::asleep(&node, slot)).collect();
        let _guard = node.guard(&["--stale-after", "100ms"]);
        wait_until("all run", || frozen(&servers) == [false; 2]);
    });
}

#[test]
fn a_damaged_log_and_a_vanished_cgroup_stop_nothing() {
    in_own_namespaces(|| {
        let node = Node::new();
        let servers = [Server::asleep(&node, 0)];
        drop(Server::asleep(&node, 1));
        std::fs::write(node.run_dir().join("undo/server-bad.jsonl"), b"\xff\n{}\n{\"seq\":").unwrap();
        std::fs::create_dir(node.run_dir().join("undo/server-folder.jsonl")).unwrap();
        let guard = node.guard(&["--stale-after", "100ms"]);
        wait_until("the good one runs", || !servers[0].is_frozen());
        assert!(guard.terminate().success());
    });
}

fn iproute(command: &str) -> String {
    let words: Vec<&str> = command.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).output().expect("iproute2");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn cgroup_fixture(node: &Node, server: &str) -> std::path::PathBuf {
    let cgroup = node.dir.path().join(server);
    std::fs::create_dir(&cgroup).unwrap();
    std::fs::write(cgroup.join("cpu.max"), "max 100000\n").unwrap();
    let log = UndoLog::of_server(&node.run_dir(), server, 9).unwrap();
    doze::throttle(&cgroup, &log, 5).unwrap();
    cgroup
}

#[test]
fn a_throttled_server_gets_its_cpu_back() {
    in_own_namespaces(|| {
        let node = Node::new();
        let mut door = Door::new(&node);
        door.stale();
        let cgroup = cgroup_fixture(&node, "throttled");
        let _guard = node.guard(&["--guard-limit", "1000d"]);
        door.knock(9);
        wait_until("cpu.max is back", || {
            std::fs::read_to_string(cgroup.join("cpu.max")).unwrap() == "max 100000"
        });
    });
}

/// Everything that a daemon may change, on the loopback device of a namespace of our own.
#[test]
fn off_puts_everything_back_and_says_so() {
    in_own_namespaces(|| {
        let node = Node::new();
        Door::new(&node).stale();
        let log = UndoLog::of_server(&node.run_dir(), "server-0", 0).unwrap();
        let program = bpf::classifier();

        let qdisc = Change::Clsact { interface: "lo".to_owned(), ifindex: 1 };
        log.before(qdisc).unwrap();
        iproute("tc qdisc add dev lo clsact");
        let pinned = node.pins().join("door");
        log.before(Change::Pin { path: pinned.clone() }).unwrap();
        bpf::pin(&program, &pinned);
        let filter = Change::Filter {
            interface: "lo".to_owned(),
            ifindex: 1,
            direction: Direction::Egress,
            priority: 7,
            handle: NonZeroU32::new(9).unwrap(),
        };
        log.before(filter).unwrap();
        let pinned = pinned.display();
        iproute(&format!("tc filter add dev lo egress prio 7 handle 9 bpf da object-pinned {pinned}"));
        let link_pin = node.pins().join("link-lo");
        log.before(Change::Pin { path: link_pin.clone() }).unwrap();
        // Held open as a daemon that hangs would.
        let link = bpf::tcx_link(&program, 1);
        bpf::pin(&link, &link_pin);
        let cgroup = cgroup_fixture(&node, "throttled");
        let servers = [Server::asleep(&node, 0)];

        let output = node.call("off");
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{said}");
        for line in [
            "/cgroup.freeze restored",
            "server throttled: ",
            "server server-0: egress filter 7:9 of lo restored",
            "server server-0: clsact qdisc of lo restored",
            "/link-lo restored",
            "/NODE removed",
        ] {
            assert!(said.contains(line), "{line:?} is missing in\n{said}");
        }
        assert_eq!(frozen(&servers), [false]);
        assert_eq!(std::fs::read_to_string(cgroup.join("cpu.max")).unwrap(), "max 100000");
        assert!(!iproute("tc qdisc show dev lo").contains("clsact"));
        assert!(!node.pin_dir().exists());
        assert!(logs(&node.run_dir()).unwrap().is_empty());
        let link = std::fs::read_to_string(fdinfo(&link)).unwrap();
        assert!(link.lines().any(|line| line == "ifindex:\t0"), "still attached:\n{link}");

        let marker = node.state_dir().join("off");
        assert!(marker.exists());
        let again = node.call("off");
        assert!(again.status.success());
        assert_eq!(String::from_utf8(again.stdout).unwrap(), "dormouse is off\n");
        assert!(String::from_utf8(node.call("status").stdout).unwrap().starts_with("dormouse is off"));
        assert!(node.call("on").status.success());
        assert!(!marker.exists());
        assert!(node.call("on").status.success());
    });
}

fn fdinfo(fd: &std::os::fd::OwnedFd) -> String {
    format!("/proc/self/fdinfo/{}", std::os::fd::AsRawFd::as_raw_fd(fd))
}

/// A thread plays the living daemon: it sees the marker and puts back what is its own.
#[test]
fn off_lets_a_living_daemon_go_first() {
    in_own_namespaces(|| {
        let node = Node::new();
        Door::new(&node).alive();
        let servers = [Server::asleep(&node, 0)];
        let output = std::thread::scope(|scope| {
            scope.spawn(|| {
                wait_until("the marker is there", || node.state_dir().join("off").exists());
                logs(&node.run_dir()).unwrap()[0].play_back().unwrap();
            });
            node.call("off")
        });
        assert!(output.status.success());
        assert_eq!(frozen(&servers), [false]);
        assert!(logs(&node.run_dir()).unwrap().is_empty());
        assert!(!node.pin_dir().exists());
    });
}

/// As a daemon does that was stopped between the lock and its append.
#[test]
fn off_thaws_under_a_locked_log() {
    in_own_namespaces(|| {
        let node = Node::new();
        let servers = [Server::asleep(&node, 0)];
        let file = std::fs::File::open(node.run_dir().join("undo/server-server-0.jsonl")).unwrap();
        file.lock().unwrap();
        let output = node.call("off");
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(!output.status.success() && said.contains("still in the log"), "{said}");
        assert_eq!(frozen(&servers), [false]);
        file.unlock().unwrap();
        assert!(node.call("off").status.success());
    });
}

#[test]
fn off_leaves_what_others_use() {
    in_own_namespaces(|| {
        let node = Node::new();
        std::fs::create_dir_all(node.pins()).unwrap();
        let pinned = node.dir.path().join("bpf/others");
        bpf::pin(&bpf::classifier(), &pinned);
        let log = UndoLog::of_server(&node.run_dir(), "server-0", 0).unwrap();
        log.before(Change::Clsact { interface: "lo".to_owned(), ifindex: 1 }).unwrap();
        let filter = |priority, handle| Change::Filter {
            interface: "lo".to_owned(),
            ifindex: 1,
            direction: Direction::Ingress,
            priority,
            handle: NonZeroU32::new(handle).unwrap(),
        };
        log.before(filter(7, 8)).unwrap();
        log.before(filter(6, 9)).unwrap();
        iproute("tc qdisc add dev lo clsact");
        let pinned = pinned.display();
        iproute(&format!("tc filter add dev lo ingress prio 7 handle 9 bpf da object-pinned {pinned}"));

        let output = node.call("off");
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{said}");
        assert!(said.contains("clsact qdisc of lo is used by others, left alone"), "{said}");
        assert!(iproute("tc filter show dev lo ingress").contains("pref 7"));
        assert!(Path::new(&node.dir.path().join("bpf/others")).exists());
    });
}

#[test]
fn off_touches_no_plain_folder() {
    in_own_namespaces(|| {
        let node = Node::new();
        let folder = node.dir.path().join("plain");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("mine"), "").unwrap();
        std::os::unix::fs::symlink(&folder, node.pin_dir()).unwrap();
        assert!(node.call("off").status.success());
        assert_eq!(std::fs::metadata(folder.join("mine")).unwrap().nlink(), 1);
    });
}
