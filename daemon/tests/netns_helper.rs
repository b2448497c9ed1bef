//! The real helper program, with real namespaces.

use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command};
use std::sync::{Mutex, PoisonError};

use dormouse_daemon::discover::{link, sockets};
use dormouse_daemon::netns::{Helper, NamespaceSockets, NetnsError};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dormouse-netns");

/// A process in a network namespace of its own.
struct Server(Child);

impl Server {
    fn start() -> Self {
        let server = Self(Command::new("unshare").args(["--net", "sleep", "1000"]).spawn().unwrap());
        let inode = |pid: &str| std::fs::metadata(format!("/proc/{pid}/ns/net")).unwrap().ino();
        let pid = server.pid().to_string();
        for _ in 0..2000 {
            if inode(&pid) != inode("self") {
                return server;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("unshare made no namespace");
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The helpers that this test process has started.
fn helpers() -> Vec<i32> {
    let children = |pid: u32| -> Vec<i32> {
        let mut pids = Vec::new();
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
            let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            pids.extend(text.split_whitespace().map(|pid| pid.parse::<i32>().unwrap()));
        }
        pids
    };
    children(std::process::id())
        .into_iter()
        .filter(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim()
                == "dormouse-netns"
        })
        .collect()
}

/// One test at a time: the helpers of this process are counted.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn the_helper_opens_sockets_in_a_servers_namespace_and_is_started_again() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start();
    let helper = Helper::spawn(PROGRAM).unwrap();
    let mut inside = helper.sockets(server.pid()).unwrap();
    let devices = link::devices(&mut inside.route).unwrap();
    assert!(devices.iter().all(|device| device.name != "eth0" || device.kind.is_some()), "{devices:?}");
    assert!(devices.iter().any(|device| device.loopback && !device.up), "its own loopback is down");
    assert_eq!(sockets::list(&mut inside.diag).unwrap(), sockets::Sockets::default());
    let own = NamespaceSockets::own().unwrap();
    assert!(!inside.namespace.is(&own.namespace).unwrap());

    // The descriptors hold the namespace; without the process there is only no way in.
    let pid = server.pid();
    drop(server);
    assert!(!link::devices(&mut inside.route).unwrap().is_empty());
    assert!(matches!(helper.sockets(pid), Err(NetnsError::Gone { .. })));

    // A helper that dies is noticed once and replaced.
    let server = Server::start();
    let [first] = helpers()[..] else { panic!("one helper runs") };
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL).unwrap();
    let error = helper.sockets(server.pid()).unwrap_err();
    assert!(matches!(error, NetnsError::Lost { .. }), "{error}");
    assert!(helper.sockets(server.pid()).is_ok());
    drop(helper);
    assert!(helpers().is_empty());

    let error = Helper::spawn("/no/such/helper").unwrap_err();
    assert!(error.to_string().contains("installed"), "{error}");
    // A program that is no helper.
    let stranger = Helper::spawn("/bin/true").unwrap();
    assert!(matches!(stranger.sockets(server.pid()), Err(NetnsError::Lost { .. })));
}

#[test]
fn the_host_end_of_a_servers_veth_is_found_through_the_helper() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start();
    // It goes away with the server's namespace.
    let name = format!("dmt{}", std::process::id());
    let pid = server.pid().to_string();
    let add = ["link", "add", &name, "type", "veth", "peer", "name", "eth0", "netns", &pid];
    assert!(Command::new("ip").args(add).status().unwrap().success());
    let up = [&format!("--net=/proc/{pid}/ns/net"), "ip", "link", "set", "eth0", "up"];
    assert!(Command::new("nsenter").args(up).status().unwrap().success());

    let helper = Helper::spawn(PROGRAM).unwrap();
    let mut inside = helper.sockets(server.pid()).unwrap();
    let mut own = NamespaceSockets::own().unwrap();
    let roads = link::roads(&mut inside, &mut own.route).unwrap();
    let veths = roads.all_through_doors().unwrap();
    assert_eq!(veths.len(), 1, "{veths:?}");
    assert_eq!(veths[0].host_end.name, name);
    assert!(veths[0].host_end.is_still_there(&mut own.route).unwrap());
}

/// The helper with no capability but these.
fn with_capabilities(directory: &std::path::Path, capabilities: &str) -> std::path::PathBuf {
    let path = directory.join(format!("helper{capabilities}"));
    // By another process: a descriptor open for writing, inherited by a fork of a test beside this one, would
    // make the kernel refuse to run it (ETXTBSY).
    let write = "printf '#!/bin/sh\\nexec /usr/bin/setpriv --bounding-set %s %s\\n' \"$1\" \"$2\" > \"$0\"; chmod +x \"$0\"";
    let mut command = Command::new("sh");
    command.args(["-c", write]).arg(&path).args([capabilities, PROGRAM]);
    assert!(command.status().unwrap().success());
    path
}

#[test]
fn the_helper_needs_sys_admin_and_nothing_else() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start();
    let helper = Helper::spawn(with_capabilities(directory.path(), "-all,+sys_admin")).unwrap();
    assert!(helper.sockets(server.pid()).is_ok());
    let helper = Helper::spawn(with_capabilities(directory.path(), "-all")).unwrap();
    let error = helper.sockets(server.pid()).unwrap_err().to_string();
    assert!(error.contains("CAP_SYS_ADMIN is needed"), "{error}");
}

#[test]
fn the_helper_ends_when_the_daemon_closes_and_refuses_what_is_no_namespace() {
    use dormouse_daemon::netns::protocol::{FAILED, SOCKETS, receive, send};
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use std::os::fd::AsFd;

    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let mut child = Command::new(PROGRAM).stdin(theirs).spawn().unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let ask = |request: u8, files: &[&std::fs::File]| {
        let descriptors: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
        send(&ours, &[request], &descriptors).unwrap();
        let mut text = [0; 256];
        let (length, descriptors) = receive(&ours, &mut text).unwrap();
        assert!(descriptors.is_empty());
        assert_eq!(text[0], FAILED);
        String::from_utf8_lossy(&text[1..length]).into_owned()
    };
    assert!(ask(SOCKETS, &[&file]).starts_with("setns: "));
    assert!(ask(SOCKETS, &[]).contains("one namespace"));
    assert!(ask(SOCKETS, &[&file, &file]).contains("one namespace"));
    assert!(ask(99, &[&file]).contains("different versions"));
    drop(ours);
    assert!(child.wait().unwrap().success());
}
