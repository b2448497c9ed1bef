//! Hundreds of small servers on one node, each in a cgroup and a network namespace of its own, made in seconds:
//! the namespaces have no names, and one `ip` a server sets all of its network up.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};

use crate::{
    cgroup::Cgroup,
    clients,
    daemon::{Daemon, ServerFile},
    netns::Netns,
    servers::echo::sibling,
    stand::{PORT, SOON},
    topology::Node,
};

/// Where the servers' addresses begin: a range beside that of the node's own pods.
const BRIDGE: &str = "10.43.0.1/16";

/// One server of the herd.
pub struct Member {
    pub name: String,
    pub cgroup: Cgroup,
    pub address: SocketAddr,
    child: Child,
}

/// The node, its daemon and its servers. Fields drop in order: the daemon, the servers, their cgroups' parent.
pub struct Herd {
    pub daemon: Daemon,
    pub members: Vec<Member>,
    parent: Cgroup,
    pub node: Node,
}

impl Herd {
    /// Starts `count` echo servers and writes their server files; the daemon is not started.
    ///
    /// # Errors
    /// Not root, or a tool is missing.
    pub fn prepare(count: u16, limits: &str) -> Result<Self> {
        let node = Node::create(0)?;
        node.netns.ip(&format!("addr add {BRIDGE} dev cni0"))?;
        node.client.ip("route add 10.43.0.0/16 via 192.0.2.1")?;
        let daemon = Daemon::prepare()?;
        let parent = Cgroup::create("herd")?;
        let mut herd = Self { daemon, members: vec![], parent, node };
        for index in 0..count {
            let member = herd.member(index)?;
            herd.members.push(member);
        }
        // The bridge's side of all veths in one go.
        let ports = (0..count).map(|index| format!("link set herd{index} master cni0 up"));
        let lines = ports.collect::<Vec<_>>().join("\n");
        herd.node.netns.run(|| ip(&lines))?;
        for member in &herd.members {
            let [tcp, udp] = ["tcp", "udp"].map(|transport| format!("{transport}/{PORT}"));
            herd.daemon.manage(&ServerFile {
                name: &member.name,
                profile: "generic-tcp",
                cgroup: &member.cgroup,
                ports: &[&tcp, &udp],
                limits,
            })?;
        }
        Ok(herd)
    }

    fn member(&self, index: u16) -> Result<Member> {
        let cgroup = self.parent.create_below(&format!("s{index}"))?;
        let procs = OpenOptions::new().write(true).open(cgroup.path().join("cgroup.procs"))?;
        let mut command = Command::new(sibling("echo-server")?);
        command.args(["--port", &PORT.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let enter = move || -> io::Result<()> {
            (&procs).write_all(b"0")?;
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes the system calls write(2), on a descriptor that was
        // opened before, and unshare(2); it allocates nothing and takes no lock.
        unsafe { command.pre_exec(enter) };
        // `spawn` returns after the exec, so the namespace is there.
        let child = command.spawn().context("start an echo server")?;
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 43, 1, 0)) + u32::from(index));
        let network = format!(
            "link set lo up\n\
             link add eth0 type veth peer name herd{index} netns {}\n\
             addr add {address}/16 dev eth0\n\
             link set eth0 up\n\
             route add default via 10.43.0.1\n",
            self.node.netns.name()
        );
        let inside = File::open(format!("/proc/{}/ns/net", child.id()))?;
        Netns::run_in(&inside, || ip(&network))?;
        let name = format!("herd/{index}");
        Ok(Member { name, cgroup, address: SocketAddr::new(address.into(), PORT), child })
    }

    /// Starts the daemon by this command line, and waits until every server sleeps.
    ///
    /// # Errors
    /// One does not fall asleep within `patience` half minutes.
    pub fn start_and_doze(&mut self, command: Command, patience: u32) -> Result<()> {
        self.daemon.start_as(&self.node.netns, command)?;
        let until = std::time::Instant::now() + SOON * patience;
        loop {
            let frozen = self.members.iter().filter(|member| member.cgroup.is_frozen().unwrap_or(false));
            let frozen = frozen.count();
            if frozen == self.members.len() {
                return Ok(());
            }
            ensure!(
                std::time::Instant::now() < until,
                "{frozen} of {} sleep\n{}",
                self.members.len(),
                self.daemon.log()
            );
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }

    /// A player's first payload by TCP to one of them.
    ///
    /// # Errors
    /// No answer within half a minute.
    pub fn tcp(&self, index: usize) -> Result<clients::Answer> {
        let to = self.members[index].address;
        self.node.client.run(|| clients::echo::tcp(to, b"let me in", SOON))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Frozen or not: SIGKILL ends it in its cgroup (v2 freezer).
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `ip -batch` in the caller's namespace.
fn ip(lines: &str) -> Result<()> {
    let mut child = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn()?;
    child.stdin.take().context("ip's stdin")?.write_all(lines.as_bytes())?;
    let status = child.wait()?;
    ensure!(status.success(), "ip -batch: {status} of\n{lines}");
    Ok(())
}
