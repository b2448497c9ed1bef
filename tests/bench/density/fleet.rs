//! The servers of the density bench: started one after the other, weighed together, joined by players.

use std::{collections::BTreeMap, fs, net::SocketAddr, thread, time::Duration};

use anyhow::{Context, Result};
use dormouse_api::status::Stage;
use dormouse_tests::{
    cgroup::Cgroup,
    clients,
    daemon::{Daemon, QUICK, ServerFile},
    netns::Netns,
    process::Place,
    servers::{Server, java, luanti, minecraft},
    topology::{NODE, Node, Road, Transport},
    weight::Scale,
};
use nix::sys::signal::Signal;

const HEAP_MIB: u32 = 64;
/// What a start leaves to do freezes with the server otherwise.
const SETTLE: Duration = Duration::from_millis(800);
const DEEP_WITHIN: Duration = Duration::from_mins(1);
/// Who is not in by then has given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// The servers' ports on the node, from here on.
const FIRST_PORT: u16 = 20_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Luanti,
    Minecraft,
    Jvm,
}

/// In equal numbers, in this order.
pub const KINDS: [Kind; 3] = [Kind::Luanti, Kind::Minecraft, Kind::Jvm];

impl Kind {
    fn transport(self) -> Transport {
        if self == Self::Luanti { Transport::Udp } else { Transport::Tcp }
    }

    /// Its own port, in its own namespace.
    fn port(self) -> u16 {
        match self {
            Self::Luanti => 30000,
            Self::Minecraft => 25565,
            Self::Jvm => 7001,
        }
    }

    fn profile(self) -> &'static str {
        match self {
            Self::Luanti => "luanti",
            Self::Minecraft => "minecraft-java",
            Self::Jvm => "generic-tcp",
        }
    }

    fn more_limits(self) -> &'static str {
        // It answers whoever speaks.
        if self == Self::Jvm { "first_speaker = \"client\"\n" } else { "" }
    }

    fn start(self, place: Place<'_>) -> Result<Server> {
        match self {
            Self::Luanti => luanti::start(place, self.port()),
            Self::Minecraft => minecraft::start(place, self.port()),
            Self::Jvm => java::heap(place, self.port(), HEAP_MIB, java::Objects::Large),
        }
    }
}

/// A server that players can come to.
#[derive(Clone, Debug)]
pub struct Door {
    pub kind: Kind,
    pub to: SocketAddr,
}

impl Door {
    /// How long a player waits until it is in the game; the JVM has no join: one line there, one back.
    pub fn join(&self, client: &Netns, player: &str) -> Result<Duration> {
        match self.kind {
            Kind::Jvm => Ok(client.run(|| clients::line::ask(self.to, "ping", PATIENCE))?.first_reply),
            Kind::Luanti => Ok(client.run(|| clients::luanti::join(self.to, player, PATIENCE))?.joined),
            Kind::Minecraft => {
                let stay = Duration::from_millis(200);
                Ok(clients::node::minecraft_join(Place::netns(client), self.to, player, stay)?.joined)
            }
        }
    }
}

struct Member {
    kind: Kind,
    server: Server,
    cgroup: Cgroup,
}

/// Dropped in this order: the daemon first, so that it sees its servers to the end; the node last.
pub struct Fleet {
    daemon: Option<(Daemon, Scale)>,
    members: Vec<Member>,
}

impl Fleet {
    /// With the real daemon in the node, or without; no server yet.
    pub fn new(node: &Node, with_daemon: bool) -> Result<Self> {
        let daemon = if with_daemon {
            let (mut daemon, scale) = (Daemon::prepare()?, Scale::new()?);
            let command = scale.put(&daemon.command()?);
            daemon.start_as(&node.netns, command)?;
            Some((daemon, scale))
        } else {
            None
        };
        Ok(Self { daemon, members: vec![] })
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn has_daemon(&self) -> bool {
        self.daemon.is_some()
    }

    /// The kind of the next server.
    pub fn next_kind(&self) -> Kind {
        KINDS[self.members.len() % KINDS.len()]
    }

    /// Starts one more, and under the daemon puts it to sleep, deep; when this returns players may come. `None`: it does
    /// not go deep (the reason is printed), and is gone again.
    pub fn start_next(&mut self, node: &Node, limits: &str) -> Result<Option<Door>> {
        let (index, kind) = (self.members.len(), self.next_kind());
        let cgroup = Cgroup::create("density")?;
        let server = kind.start(Place::new(&node.pods[index].netns, &cgroup))?;
        let port = FIRST_PORT + u16::try_from(index)?;
        node.publish(index, Road::HostPort, kind.transport(), port, kind.port())?;
        let name = format!("density/{index}");
        if let Some((daemon, _)) = &self.daemon {
            let transport = if kind.transport() == Transport::Tcp { "tcp" } else { "udp" };
            daemon.manage(&ServerFile {
                name: &name,
                profile: kind.profile(),
                cgroup: &cgroup,
                ports: &[&format!("{transport}/{}", kind.port())],
                limits: &format!("{limits}{}", kind.more_limits()),
            })?;
            let process = daemon.process.as_ref().context("the daemon runs")?;
            process.signal(Signal::SIGHUP)?;
            thread::sleep(SETTLE);
            // Awake, or asleep already by itself.
            daemon.sleep(&name, true).or_else(|error| self.asleep(&name).then_some(()).ok_or(error))?;
            if daemon.wait_for(&name, Stage::Deep, DEEP_WITHIN).is_err() {
                let now = daemon.server(&name)?;
                println!("{name}, {kind:?}, does not go deep: {:?}, {:?}", now.stage, now.note);
                return Ok(None);
            }
        }
        self.members.push(Member { kind, server, cgroup });
        Ok(Some(Door { kind, to: SocketAddr::new(NODE[0], port) }))
    }

    fn asleep(&self, name: &str) -> bool {
        let stage = self.daemon.as_ref().and_then(|(daemon, _)| Some(daemon.server(name).ok()?.stage));
        matches!(stage, Some(Stage::Dozing | Stage::Deep))
    }

    /// Bytes: what all servers weigh by Pss, the swap cache (the machine's: nothing else swaps meanwhile), and the
    /// daemon with its maps.
    pub fn weight(&self) -> Result<u64> {
        let servers = self.members.iter().map(|member| pss(&member.cgroup)).sum::<Result<u64>>()?;
        let daemon = self.daemon_weight()?;
        Ok(servers + swap_cached()? + daemon)
    }

    pub fn daemon_weight(&self) -> Result<u64> {
        self.daemon.as_ref().map_or(Ok(0), |(_, scale)| scale.bytes())
    }

    /// The mean weight of one, bytes.
    pub fn mean_weight(&self) -> Result<f64> {
        let sum = self.weight()? - self.daemon_weight()?;
        Ok(sum as f64 / self.members.len() as f64)
    }

    /// What each kind weighs, and how many are deep; for people.
    pub fn told(&self) -> Result<String> {
        let mut told = vec![];
        for kind in KINDS {
            let of = self.members.iter().filter(|member| member.kind == kind);
            let weights = of.map(|member| pss(&member.cgroup)).collect::<Result<Vec<u64>>>()?;
            let mean = weights.iter().sum::<u64>() as f64 / weights.len().max(1) as f64;
            told.push(format!("{} {kind:?} of {:.1} MiB", weights.len(), mean / f64::from(1 << 20)));
        }
        if let Some((daemon, _)) = &self.daemon {
            let servers = daemon.status()?.servers;
            let (deep, others): (Vec<_>, Vec<_>) =
                servers.iter().partition(|server| server.stage == Stage::Deep);
            told.push(format!("{} deep", deep.len()));
            let mut why = BTreeMap::new();
            for server in others {
                let note = server.note.as_deref().unwrap_or("no reason given");
                *why.entry(format!("{:?} ({note})", server.stage)).or_insert(0) += 1;
            }
            told.extend(why.into_iter().map(|(why, count)| format!("{count} {why}")));
        }
        Ok(told.join(", "))
    }

    /// How many have ended by themselves.
    pub fn ended(&mut self) -> usize {
        self.members.iter_mut().filter_map(|member| member.server.process.exited().ok().flatten()).count()
    }
}

/// As a day in ten minutes wants it: `doze_after` and `deep_after` in seconds.
pub fn limits(doze_after: u32, deep_after: u32) -> String {
    QUICK
        .replace("doze_after = \"1s\"", &format!("doze_after = \"{doze_after}s\""))
        .replace("deep_after = \"never\"", &format!("deep_after = \"{deep_after}s\""))
        .replace("floor = \"dozing\"", "floor = \"deep\"")
}

/// Bytes of Pss (proc_pid_smaps_rollup(5)) of all processes of a cgroup.
fn pss(cgroup: &Cgroup) -> Result<u64> {
    let mut sum = 0;
    for pid in cgroup.pids()? {
        // It may have ended.
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else { continue };
        sum += kib(&text, "Pss:").context("Pss")? << 10;
    }
    Ok(sum)
}

fn swap_cached() -> Result<u64> {
    Ok(kib(&fs::read_to_string("/proc/meminfo")?, "SwapCached:").context("SwapCached")? << 10)
}

fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}
