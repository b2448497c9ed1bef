//! One server that holds memory, in a pod and a cgroup of its own, and what the kernel says of that cgroup.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use dormouse_api::status::Stage;
use dormouse_tests::{
    cgroup::{self, Cgroup},
    clients::{self, Answer},
    daemon::{Daemon, ServerFile},
    process::Place,
    servers::{Server, echo},
    skip,
    topology::Node,
};

pub const NAME: &str = "vm/echo";
pub const PORT: u16 = 7100;
/// An emulated CPU takes its time.
pub const SOON: Duration = Duration::from_mins(1);
/// What the server holds.
pub const MIB: u32 = 64;

/// Nothing happens by itself but a wake: a test orders the rest.
const LIMITS: &str = "doze_after = \"1h\"\ndeep_after = \"1h\"\nfloor = \"deep\"\nmin_awake = \"1s\"\n\
                      grace_after_start = \"1s\"\nwakes_per_hour = 100000\n";

/// `uname -r`'s first two numbers.
pub fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Whether the machine is what these tests are for; says what is missing.
pub fn is_pure_v2() -> bool {
    let there = fs::read_to_string(cgroup::root().unwrap().join("cgroup.controllers")).unwrap_or_default();
    let pure = ["cpu", "memory"].iter().all(|wanted| there.split_whitespace().any(|word| word == *wanted));
    if !pure {
        skip("no cpu and memory controllers on cgroup v2: run tests/vm/wakes");
    }
    pure
}

pub struct Stand {
    pub daemon: Daemon,
    _server: Server,
    pub cgroup: Cgroup,
    pub above: Cgroup,
    pub node: Node,
}

impl Stand {
    /// A daemon that watches the server, with the metrics of the node's own namespace.
    pub fn new(doze_by: &str) -> Self {
        let node = Node::create(1).unwrap();
        let above = Cgroup::create("pod").unwrap();
        let cgroup = above.create_below("echo").unwrap();
        let server = echo::start_holding(Place::new(&node.pods[0].netns, &cgroup), PORT, MIB).unwrap();
        let daemon = Daemon::prepare().unwrap();
        daemon
            .manage(&ServerFile {
                name: NAME,
                profile: "generic-tcp",
                cgroup: &cgroup,
                ports: &["tcp/7100", "udp/7100"],
                limits: &format!("{LIMITS}doze_by = \"{doze_by}\"\n"),
            })
            .unwrap();
        Self { daemon, _server: server, cgroup, above, node }
    }

    pub fn start(mut self) -> Self {
        self.daemon.start(&self.node.netns).unwrap();
        self.until("watched", || self.daemon.server(NAME).is_ok_and(|server| server.size_bytes > 0));
        self
    }

    /// What a file of the server's cgroup holds.
    pub fn file(&self, name: &str) -> String {
        let path = self.cgroup.path().join(name);
        fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            .trim()
            .to_owned()
    }

    pub fn write(&self, name: &str, value: &str) {
        fs::write(self.cgroup.path().join(name), value).unwrap();
    }

    /// Bytes, of a file that holds one number.
    pub fn bytes(&self, name: &str) -> u64 {
        self.file(name).parse().unwrap()
    }

    /// Bytes, of a line of memory.stat.
    pub fn stat(&self, key: &str) -> u64 {
        let text = self.file("memory.stat");
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {key} in {text}")).parse().unwrap()
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.node.pods[0].v4), PORT)
    }

    /// A player says this and is answered.
    pub fn says(&self, message: &str) -> Answer {
        let to = self.address();
        self.node
            .client
            .run(|| clients::echo::tcp(to, message.as_bytes(), SOON))
            .unwrap_or_else(|error| panic!("{error:#}\n{}\n{:?}", self.daemon.log(), self.daemon.why(NAME)))
    }

    /// A player is answered that all of the server's memory is as it was.
    pub fn is_whole(&self) {
        let answer = self.says("check");
        let said = String::from_utf8_lossy(&answer.reply).into_owned();
        assert!(said.ends_with("check wrong=0"), "{said}");
    }

    pub fn wait_for(&self, stage: Stage) {
        self.daemon.wait_for(NAME, stage, SOON).unwrap();
    }

    pub fn until(&self, what: &str, ready: impl Fn() -> bool) {
        let limit = Instant::now() + SOON;
        while !ready() {
            assert!(
                Instant::now() < limit,
                "never {what}\n{}\n{:?}",
                self.daemon.log(),
                self.daemon.why(NAME)
            );
            thread::sleep(Duration::from_millis(50));
        }
    }
}
