//! A node with the real daemon and real servers that go deep, each asked through its host port.

use std::{net::SocketAddr, thread, time::Duration};

use anyhow::{Context, Result};
use dormouse_api::{status::Stage, why::LastWake};
use dormouse_tests::{
    cgroup::Cgroup,
    daemon::{Daemon, QUICK, ServerFile},
    process::Place,
    servers::Server,
    topology::{NODE, Node, Road, Transport},
};

/// How long a woken server's working set is watched (the daemon's last look), and a little more.
const RECORDED: Duration = Duration::from_millis(5500);
/// Work left over from the join before freezes with the server and goes on after the thaw.
pub const SETTLE: Duration = Duration::from_millis(800);
pub const DEEP_WITHIN: Duration = Duration::from_mins(2);

/// What is to run.
pub struct Wanted<'a> {
    pub name: &'a str,
    pub profile: &'a str,
    pub transport: Transport,
    pub port: u16,
    /// More `[limits]`, in place of the usual ones of the same name.
    pub limits: &'a str,
    pub start: &'a dyn Fn(Place<'_>, u16) -> Result<Server>,
}

/// Dropped in this order: the daemon first, so that it sees its servers to the end.
pub struct Deep {
    pub daemon: Daemon,
    pub servers: Vec<(String, SocketAddr, Server)>,
    _cgroups: Vec<Cgroup>,
    pub node: Node,
}

impl Deep {
    pub fn new(wanted: &[Wanted<'_>]) -> Result<Self> {
        let node = Node::create(u8::try_from(wanted.len())?)?;
        let mut daemon = Daemon::prepare()?;
        let (mut servers, mut cgroups) = (vec![], vec![]);
        for (index, one) in wanted.iter().enumerate() {
            let cgroup = Cgroup::create("deep")?;
            let server = (one.start)(Place::new(&node.pods[index].netns, &cgroup), one.port)?;
            node.publish(index, Road::HostPort, one.transport, one.port, one.port)?;
            let protocol = if one.transport == Transport::Tcp { "tcp" } else { "udp" };
            let is_set = |line: &&str| !one.limits.contains(line.split(' ').next().unwrap_or_default());
            let limits = QUICK.lines().filter(is_set).flat_map(|line| [line, "\n"]).collect::<String>();
            let limits = limits
                .replace("doze_after = \"1s\"", "doze_after = \"1h\"")
                .replace("deep_after = \"never\"", "deep_after = \"1h\"")
                .replace("floor = \"dozing\"", "floor = \"deep\"");
            daemon.manage(&ServerFile {
                name: one.name,
                profile: one.profile,
                cgroup: &cgroup,
                ports: &[&format!("{protocol}/{}", one.port)],
                limits: &format!("{limits}{}", one.limits),
            })?;
            servers.push((one.name.to_owned(), SocketAddr::new(NODE[0], one.port), server));
            cgroups.push(cgroup);
        }
        daemon.start(&node.netns)?;
        for one in wanted {
            daemon.wait_for(one.name, Stage::Awake, DEEP_WITHIN)?;
        }
        Ok(Self { daemon, servers, _cgroups: cgroups, node })
    }

    /// All servers deep, and swept.
    pub fn sleep(&self) -> Result<()> {
        self.go_to(Stage::Deep)
    }

    /// All servers asleep, with their memory.
    pub fn doze(&self) -> Result<()> {
        self.go_to(Stage::Dozing)
    }

    fn go_to(&self, stage: Stage) -> Result<()> {
        thread::sleep(SETTLE);
        for (name, ..) in &self.servers {
            self.daemon.sleep(name, stage == Stage::Deep)?;
            self.daemon.wait_for(name, stage, DEEP_WITHIN)?;
        }
        thread::sleep(SETTLE);
        Ok(())
    }

    /// Until what the last wake touched is recorded.
    pub fn rest() {
        thread::sleep(RECORDED);
    }

    /// How its last wake went, once the door has seen its answer.
    pub fn last_wake(&self, name: &str) -> Result<LastWake> {
        for _ in 0..200 {
            if let Some(wake) = self.daemon.why(name)?.last_wake
                && wake.phases.first_answer_ns.is_some()
            {
                return Ok(wake);
            }
            thread::sleep(Duration::from_millis(50));
        }
        self.daemon.why(name)?.last_wake.context("it was never woken")
    }
}
