//! One server in a pod, published by a hostPort, with a daemon that watches it.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use dormouse_api::{
    event::{Event, EventFilter, EventKind},
    status::{ServerStatus, Stage},
    why::Why,
};
use dormouse_tests::{
    cgroup::Cgroup,
    daemon::{Daemon, QUICK, ServerFile},
    process::Place,
    servers::{Server, ddnet, echo, java, luanti, minecraft},
    topology::{NODE, Node, Road, Transport},
};

pub const NAME: &str = "games/one";
pub const PORT: u16 = 25565;
/// The node's own, from where a hostPort leads to the pod; IPv4.
pub const ADDRESS: SocketAddr = SocketAddr::new(NODE[0], PORT);
/// How long a client waits for one answer on a busy machine.
pub const TIMEOUT: Duration = Duration::from_secs(20);
/// How long a stage may take to come.
pub const SOON: Duration = Duration::from_mins(1);

pub const VOUCHED: &[(&str, &str)] = &[("watchdog", "off"), ("save", "not-needed"), ("outbound", "harmless")];

/// What runs in the pod.
#[derive(Clone, Copy)]
pub enum Plays {
    Minecraft,
    Luanti,
    DdNet,
    Echo,
    EchoUdp,
    /// MiB of live heap.
    Heap(u32),
    /// `max-tick-time`, ms.
    Tick(i64),
}

impl Plays {
    pub fn start(self, place: Place<'_>) -> anyhow::Result<Server> {
        match self {
            Self::Minecraft => minecraft::start(place, PORT),
            Self::Luanti => luanti::start(place, PORT),
            Self::DdNet => ddnet::start(place, PORT),
            Self::Echo | Self::EchoUdp => echo::start(place, PORT),
            Self::Heap(mib) => java::heap(place, PORT, mib, java::Objects::Large),
            Self::Tick(max_tick_time_ms) => java::tick(place, PORT, max_tick_time_ms),
        }
    }

    fn transport(self) -> Transport {
        match self {
            Self::Luanti | Self::DdNet | Self::EchoUdp => Transport::Udp,
            _ => Transport::Tcp,
        }
    }

    pub fn ports(self) -> &'static [&'static str] {
        match self.transport() {
            Transport::Tcp => &["tcp/25565"],
            Transport::Udp => &["udp/25565"],
        }
    }
}

/// How the daemon is to treat it.
pub struct Plan<'a> {
    pub plays: Plays,
    pub profile: &'a str,
    /// `[limits]`, after those of the bench.
    pub limits: &'a str,
    pub mode: &'a str,
    pub asserted: &'a [(&'a str, &'a str)],
    pub network: Network,
}

/// Where the server listens.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// In its pod, published by a hostPort.
    Pod,
    /// In the node's own namespace.
    Host,
}

impl<'a> Plan<'a> {
    /// May doze, all vouched for.
    pub fn new(plays: Plays, profile: &'a str) -> Self {
        Self { plays, profile, limits: QUICK, mode: "full", asserted: VOUCHED, network: Network::Pod }
    }
}

pub struct Stand {
    pub daemon: Daemon,
    pub server: Server,
    pub cgroup: Cgroup,
    pub node: Node,
}

impl Stand {
    pub fn new(plan: &Plan<'_>) -> Self {
        let node = Node::create(1).unwrap();
        let cgroup = Cgroup::create("game").unwrap();
        let netns = match plan.network {
            Network::Pod => &node.pods[0].netns,
            Network::Host => &node.netns,
        };
        let server = plan.plays.start(Place::new(netns, &cgroup)).unwrap();
        if plan.network == Network::Pod {
            node.publish(0, Road::HostPort, plan.plays.transport(), PORT, PORT).unwrap();
        }
        let mut daemon = Daemon::prepare().unwrap();
        let file = ServerFile {
            name: NAME,
            profile: plan.profile,
            cgroup: &cgroup,
            ports: plan.plays.ports(),
            limits: plan.limits,
        };
        daemon.manage_as(&file, plan.mode, plan.asserted).unwrap();
        daemon.start(&node.netns).unwrap();
        let stand = Self { daemon, server, cgroup, node };
        // Only of a server that was found is there anything to measure.
        stand.until("watched", |server| server.size_bytes > 0);
        stand
    }

    /// Where the server (and its next one) runs.
    pub fn place(&self) -> Place<'_> {
        Place::new(&self.node.pods[0].netns, &self.cgroup)
    }

    pub fn doze(&self) {
        self.daemon.sleep(NAME, false).unwrap();
        assert!(self.cgroup.is_frozen().unwrap());
    }

    pub fn wait_for(&self, stage: Stage) -> ServerStatus {
        self.daemon.wait_for(NAME, stage, SOON).unwrap()
    }

    /// Waits until the server's status is as wanted.
    pub fn until(&self, what: &str, wanted: impl Fn(&ServerStatus) -> bool) -> ServerStatus {
        let limit = Instant::now() + SOON;
        loop {
            let server = self.daemon.server(NAME).unwrap();
            if wanted(&server) {
                return server;
            }
            assert!(Instant::now() < limit, "not {what}: {server:?}\n{}", self.daemon.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until `why` is as wanted.
    pub fn until_why(&self, what: &str, wanted: impl Fn(&Why) -> bool) -> Why {
        let limit = Instant::now() + SOON;
        loop {
            let why = self.daemon.why(NAME).unwrap();
            if wanted(&why) {
                return why;
            }
            assert!(Instant::now() < limit, "not {what}: {why:?}\n{}", self.daemon.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn events(&self, kind: EventKind) -> Vec<Event> {
        let filter = EventFilter { kinds: vec![kind], ..EventFilter::default() };
        self.daemon
            .ask(async |client| {
                let mut stream = client.events(&filter).await?;
                let mut all = vec![];
                while let Some(event) = stream.next().await? {
                    all.push(event);
                }
                Ok(all)
            })
            .unwrap()
    }

    /// Connections in the accept queues of the server.
    pub fn waiting_to_be_accepted(&self) -> u32 {
        self.node.pods[0].netns.waiting_to_be_accepted(PORT).unwrap()
    }

    /// Pings for longer than the shortest time between two short thaws: each is answered, none wakes.
    pub fn assert_pings_wake_nobody<T: Send>(&self, ping: impl Fn() -> anyhow::Result<T> + Sync) {
        for _ in 0..5 {
            self.node.client.run(|| ping().map(drop)).unwrap();
            self.assert_never_woken();
            std::thread::sleep(Duration::from_secs(2));
        }
        self.assert_never_woken();
    }

    /// Asleep, and nobody has woken it since the daemon started.
    pub fn assert_never_woken(&self) {
        let wakes = self.events(EventKind::Wake);
        assert!(wakes.is_empty(), "woken: {wakes:?}\n{}", self.daemon.log());
        assert_eq!(self.daemon.server(NAME).unwrap().stage, Stage::Dozing, "{}", self.daemon.log());
    }
}
