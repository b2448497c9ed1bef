//! Servers that sleep by the daemon's own code, in this process and the node's namespace: door, watch,
//! sleeper, undo log, replay. The agent above them, which decides when to sleep, is left out: it would put a
//! server to sleep once in a few seconds, and none of it is on a packet's way.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use dormouse_abi::{
    node::{self, AWAITING_ANSWER},
    server::{FlowKey, ServerKey, ServerRef},
};
use dormouse_daemon::{
    act::freezer::Freezer,
    door::{Door, Replayer, monotonic_ns},
    limits::{DozeBy, FirstSpeaker},
    netns::NamespaceSockets,
    sleep::{DozeAborted, Manners, Node, Report, Sleeper, Ways, Woken, watch},
    undo::UndoLog,
};
use dormouse_packet::{
    Game,
    headers::{TCP, UDP},
};
use dormouse_tests::{
    cgroup::Cgroup,
    cpus,
    daemon::mount_bpffs,
    owner,
    process::Place,
    servers::Server,
    topology::{self, Transport},
};
use tempfile::TempDir;
use tokio::sync::mpsc::{self, UnboundedReceiver};

/// How often a doze is tried again that something called off.
const TRIES: u32 = 50;

/// A node with the daemon's core at work on it.
pub struct Sleepers {
    pub topology: topology::Node,
    node: Arc<Node>,
    reports: UnboundedReceiver<Report>,
    watch: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    dir: TempDir,
    pins: PathBuf,
    /// Where the players' thread runs; `None` on a machine with one CPU.
    players_cpu: Option<usize>,
}

/// One server behind a door.
pub struct Behind {
    pub address: SocketAddr,
    pub sleeper: Arc<Sleeper>,
    pub cgroup: Cgroup,
    _server: Server,
}

impl Sleepers {
    pub fn new(pods: u8) -> Result<Self> {
        mount_bpffs()?;
        let topology = topology::Node::create(pods)?;
        let players_cpu = steer_uplink(&topology)?;
        let dir = owner::temp_dir("run")?;
        let pins = PathBuf::from("/sys/fs/bpf").join(owner::unique("wake"));
        let door = Door::load(&pins)?;
        let replayer = topology.netns.run(Replayer::new)?;
        door.configure(Duration::from_hours(1), Duration::from_hours(1), replayer.cookie(), 42);
        let (sender, reports) = mpsc::unbounded_channel();
        let node = Arc::new(Node::new(door, replayer, sender)?);
        let stop = Arc::new(AtomicBool::new(false));
        let (watched, ended) = (Arc::clone(&node), Arc::clone(&stop));
        let watch = std::thread::Builder::new()
            .name("dm-watch".into())
            .spawn(move || watch(&watched, &|| ended.load(SeqCst)))?;
        Ok(Self { topology, node, reports, watch: Some(watch), stop, dir, pins, players_cpu })
    }

    /// Starts a server in pod `index` and puts the door in front of it, both transports.
    pub fn add(
        &mut self,
        index: usize,
        port: u16,
        tcp: Game,
        start: impl FnOnce(Place<'_>) -> Result<Server>,
    ) -> Result<Behind> {
        let pod = &self.topology.pods[index];
        let cgroup = Cgroup::create("sleeper")?;
        let server = start(Place::new(&pod.netns, &cgroup))?;
        let slot = u32::try_from(index)?;
        self.node.arrays.reset(slot);
        let ifindex = self.topology.netns.run(|| -> Result<u32> {
            let ifindex = nix::net::if_::if_nametoindex(&*pod.host_veth)?;
            let attachment = self.node.door().plan(ifindex)?;
            self.node.door().attach(&attachment)?;
            Ok(ifindex)
        })?;
        for (protocol, game) in [(TCP, tcp), (UDP, Game::GenericUdp)] {
            let reference = ServerRef { slot, game: game as u8, flags: 0, pad: [0; 2] };
            self.node.door().watch(ServerKey::new(u64::from(ifindex), port, protocol), reference)?;
        }
        let name = format!("bench/{index}");
        let sockets = pod.netns.run(NamespaceSockets::own)?;
        let ways = Ways {
            freezer: Freezer::open(cgroup.path())?,
            log: UndoLog::of_server(self.dir.path(), &name, slot)?,
            asleep: None,
        };
        let manners = Manners {
            first_speaker: FirstSpeaker::Client,
            patience: Duration::from_secs(3),
            query_thaw: Duration::from_millis(100),
        };
        let sleeper = Arc::new(Sleeper::new(
            slot,
            name.into(),
            vec![port],
            Arc::clone(&self.node),
            manners,
            ways,
            sockets,
        ));
        self.node.slots.set(slot, Some(Arc::clone(&sleeper)));
        Ok(Behind { address: SocketAddr::new(IpAddr::V4(pod.v4), port), sleeper, cgroup, _server: server })
    }

    /// Runs `f` as a player who is not on the node: in the client's namespace, on a CPU that takes nothing off
    /// the uplink. A player on the same CPU would stand in the way of whatever his packet sets going.
    pub fn player<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        self.topology.client.run(|| {
            if let Some(cpu) = self.players_cpu {
                // A CPU that is there and allowed: it was found in this process's own set.
                let _ = cpus::stay_on(cpu);
            }
            f()
        })
    }

    /// The wakes since the last call, by slot.
    pub fn woken(&mut self) -> Vec<(u32, Woken)> {
        let mut woken = vec![];
        while let Ok(report) = self.reports.try_recv() {
            if let Report::Woken { slot, woken: one, .. } = report {
                woken.push((slot, one));
            }
        }
        woken
    }
}

/// Has the node take packets off its uplink on any CPU but the last (receive packet steering, kernel:
/// Documentation/networking/scaling.rst), as a card's interrupt would; gives back the last.
fn steer_uplink(node: &topology::Node) -> Result<Option<usize>> {
    let cpus = cpus::allowed()?;
    // The mask is written as one word.
    let Some((last, rest)) = cpus.split_last().filter(|(last, rest)| **last < 32 && !rest.is_empty()) else {
        println!("SKIP an uplink of its own: {} CPUs; the player shares one with the node", cpus.len());
        return Ok(None);
    };
    let mask = rest.iter().fold(0u32, |mask, cpu| mask | 1 << cpu);
    // `ip netns exec` mounts the /sys of the namespace.
    let steer = format!("echo {mask:x} >/sys/class/net/up0/queues/rx-0/rps_cpus");
    let wrote = Command::new("ip").args(["netns", "exec", node.netns.name(), "sh", "-c", &steer]).status()?;
    ensure!(wrote.success(), "the uplink's packets can't be steered: {steer}");
    Ok(Some(*last))
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        if let Some(watch) = self.watch.take() {
            let _ = watch.join();
        }
        let _ = std::fs::remove_dir_all(&self.pins);
    }
}

impl Behind {
    /// Puts it to doze.
    pub fn doze(&self) -> Result<()> {
        let mut why = None;
        for _ in 0..TRIES {
            match self.sleeper.doze(DozeBy::Freeze, 0, monotonic_ns()) {
                Ok(_) | Err(DozeAborted::Asleep) => return Ok(()),
                Err(error) => why = Some(error),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("{} does not doze: {:?}", self.sleeper.name, why)
    }

    /// Asks the door for the time of the next payload from the server, as a wake does.
    pub fn await_answer(&self) {
        let arrays = &self.sleeper.node.arrays;
        let state = arrays.state(self.sleeper.slot);
        state.answer_ns.store(0, SeqCst);
        if state.await_answer_ns.swap(monotonic_ns(), SeqCst) == 0 {
            arrays.node(AWAITING_ANSWER).fetch_add(1, SeqCst);
        }
    }

    /// When the server's next payload after [`Behind::await_answer`] passed the door, `CLOCK_MONOTONIC`,
    /// nanoseconds; 0 = none did. Nobody awaits one afterwards.
    pub fn answered_ns(&self) -> u64 {
        let arrays = &self.sleeper.node.arrays;
        let state = arrays.state(self.sleeper.slot);
        arrays.node(node::AWAITING_ANSWER).store(0, SeqCst);
        state.await_answer_ns.store(0, SeqCst);
        state.answer_ns.swap(0, SeqCst)
    }

    /// From the client's last payload to the server's first answer after it, both as the door saw them.
    pub fn at_the_door(&self, transport: Transport, client: SocketAddr) -> Result<Duration> {
        let answered = self.answered_ns();
        let IpAddr::V4(ip) = client.ip() else { bail!("the clients of this bench are IPv4") };
        let key = FlowKey {
            address: ip.to_ipv6_mapped().octets(),
            slot: self.sleeper.slot,
            port: client.port(),
            server_port: self.address.port(),
            protocol: if transport == Transport::Tcp { TCP } else { UDP },
            pad: [0; 3],
        };
        let asked = self.sleeper.node.door().flow(&key).context("the door did not see the client")?.last_ns;
        let took = answered.checked_sub(asked).filter(|_| answered != 0);
        Ok(Duration::from_nanos(took.context("the door saw no answer after the question")?))
    }
}
