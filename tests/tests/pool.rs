//! The node's memory as a whole: several servers, the day's budget of writes, and a storm that does not fit
//! (`tests/vm/pool`).

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use dormouse_api::{
    event::{EventFilter, EventKind},
    status::Stage,
};
use dormouse_tests::{
    cgroup::Cgroup,
    clients,
    daemon::{Daemon, ServerFile},
    process::Place,
    servers::{Server, memory},
    skip,
    swap::Swap,
    topology::Node,
};
use nix::sys::signal::Signal;

const PORT: u16 = 7200;
/// An emulated CPU takes its time.
const SOON: Duration = Duration::from_mins(2);

/// Nothing happens by itself but a wake, and what the pool orders.
const LIMITS: &str = "doze_after = \"1h\"\ndeep_after = \"1h\"\nfloor = \"deep\"\ndoze_by = \"freeze\"\n\
                      min_awake = \"1s\"\ngrace_after_start = \"1s\"\nwakes_per_hour = 100000\n\
                      first_speaker = \"client\"\n";

struct Member {
    name: String,
    address: SocketAddr,
    cgroup: Cgroup,
    server: Option<Server>,
}

/// A node, its daemon, and places for servers that hold `mib` MiB each. Fields drop in order.
struct Stand {
    daemon: Daemon,
    members: Vec<Member>,
    node: Node,
}

impl Stand {
    fn new(count: u8, settings: &str) -> Self {
        let node = Node::create(count).unwrap();
        let daemon = Daemon::prepare().unwrap();
        daemon.configure(settings).unwrap();
        let members = (0..count)
            .map(|number| {
                let address = SocketAddr::new(IpAddr::V4(node.pods[usize::from(number)].v4), PORT);
                let cgroup = Cgroup::create("pool").unwrap();
                Member { name: format!("pool/{number}"), address, cgroup, server: None }
            })
            .collect();
        let mut stand = Self { daemon, members, node };
        for member in &stand.members {
            stand
                .daemon
                .manage(&ServerFile {
                    name: &member.name,
                    profile: "generic-tcp",
                    cgroup: &member.cgroup,
                    ports: &[&format!("tcp/{PORT}")],
                    limits: LIMITS,
                })
                .unwrap();
        }
        stand.daemon.start(&stand.node.netns).unwrap();
        stand
    }

    fn run(&mut self, number: usize, mib: u32) {
        let member = &mut self.members[number];
        let place = Place::new(&self.node.pods[number].netns, &member.cgroup);
        member.server = Some(memory::start(place, PORT, mib, 1).unwrap());
        let name = &self.members[number].name;
        self.until("found", || self.daemon.server(name).is_ok_and(|server| server.size_bytes > 0));
    }

    fn ask(&self, number: usize, line: &str) -> anyhow::Result<String> {
        let to = self.members[number].address;
        let answer = self.node.client.run(|| clients::line::ask(to, line, SOON))?;
        Ok(String::from_utf8(answer.reply)?)
    }

    fn events(&self, kind: EventKind) -> Vec<Option<String>> {
        let filter = EventFilter { kinds: vec![kind], ..EventFilter::default() };
        let told = self.daemon.ask(async |client| {
            let mut stream = client.events(&filter).await?;
            let mut servers = vec![];
            while let Some(event) = stream.next().await? {
                servers.push(event.server);
            }
            Ok(servers)
        });
        told.unwrap()
    }

    fn until(&self, what: &str, ready: impl Fn() -> bool) {
        let limit = Instant::now() + SOON;
        while !ready() {
            assert!(Instant::now() < limit, "never {what}\n{}", self.daemon.log());
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn of_proc(file: &str, key: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim_start_matches(':').trim().split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_spent_budget_of_writes_stops_deep_and_says_so_also_after_a_restart() {
    const MIB: u32 = 48;
    let _swap = Swap::make(512).unwrap();
    let mut stand = Stand::new(1, "deep_write_budget = \"64MiB\"");
    stand.run(0, MIB);
    let name = stand.members[0].name.clone();
    stand.daemon.sleep(&name, true).unwrap();
    stand.daemon.wait_for(&name, Stage::Deep, SOON).unwrap();
    let writes = stand.daemon.status().unwrap().node.deep_writes.expect("a budget is set");
    assert_eq!(writes.budget_bytes, 64 << 20);
    assert!(writes.today_bytes >= u64::from(MIB) << 20, "{writes:?}");

    // All of it would have to be written again: it does not fit.
    assert_eq!(stand.ask(0, "dirty").unwrap(), "dirty");
    stand.daemon.wait_for(&name, Stage::Awake, SOON).unwrap();
    let refused = |stand: &Stand| {
        stand.until("refused for the budget", || {
            let refused = stand.daemon.sleep_once(&name, true).map_err(|error| format!("{error:#}"));
            refused.is_err_and(|reason| reason.contains("deep_write_budget"))
        });
    };
    refused(&stand);
    stand.daemon.sleep(&name, false).unwrap();
    let why = stand.daemon.why(&name).unwrap();
    assert!(why.reasons.iter().any(|reason| reason.contains("deep_write_budget")), "{why:?}");
    let note = stand.daemon.server(&name).unwrap().note;
    assert!(note.is_some_and(|note| note.contains("deep_write_budget")));

    stand.daemon.end_by(Signal::SIGTERM).unwrap();
    stand.daemon.start(&stand.node.netns).unwrap();
    stand.daemon.wait_for(&name, Stage::Dozing, SOON).unwrap();
    assert_eq!(stand.daemon.status().unwrap().node.deep_writes, Some(writes), "the books know");
    refused(&stand);
    assert_eq!(stand.ask(0, "check").unwrap(), "0 0");
}

/// In a VM of little memory: servers that hold half as much again as the node has, so that neither all of them nor the
/// wakes of all fit.
#[test]
fn a_node_that_is_short_deepens_who_was_idle_longest_and_fails_no_wake() {
    const MIB: u32 = 48;
    const SMALL: u64 = 1 << 20;
    let total = of_proc("/proc/meminfo", "MemTotal");
    if total > SMALL || of_proc("/proc/meminfo", "SwapTotal") == 0 {
        return skip("a machine of more than a GiB, or without swap: tests/vm/pool runs this in a VM");
    }
    let count = (of_proc("/proc/meminfo", "MemAvailable") * 3 / 2 / 1024).div_ceil(u64::from(MIB));
    println!("{count} servers of {MIB} MiB on {} MiB", total >> 10);
    let mut stand = Stand::new(u8::try_from(count).unwrap(), "headroom_wakes = 3");
    for number in 0..stand.members.len() {
        stand.run(number, MIB);
        let name = stand.members[number].name.clone();
        stand.daemon.sleep(&name, false).unwrap();
    }
    // What was not ordered by anybody: the pool's own doing, the one that was idle longest first.
    stand.until("out of the shortage", || stand.daemon.status().unwrap().node.short_bytes == 0);
    let deepened = stand.events(EventKind::Deep);
    let in_order: Vec<_> =
        stand.members.iter().take(deepened.len()).map(|member| Some(member.name.clone())).collect();
    assert_eq!(deepened, in_order, "{}", stand.daemon.log());
    assert!(!deepened.is_empty() && deepened.len() < stand.members.len(), "{deepened:?}");
    let node = stand.daemon.status().unwrap().node;
    let largest = u64::from(MIB) << 20;
    assert!(node.headroom_bytes >= largest * 2, "{node:?}");
    println!("{} of {count} went deep; headroom {} MiB", deepened.len(), node.headroom_bytes >> 20);

    // Everybody at once: each touches all that it holds before it answers.
    let answers: Vec<_> = thread::scope(|scope| {
        let stand = &stand;
        let knocks: Vec<_> =
            (0..stand.members.len()).map(|number| scope.spawn(move || stand.ask(number, "check"))).collect();
        knocks.into_iter().map(|knock| knock.join().unwrap()).collect()
    });
    for answer in answers {
        assert_eq!(answer.unwrap_or_else(|error| panic!("{error:#}\n{}", stand.daemon.log())), "0 0");
    }
    assert_eq!(of_proc("/proc/vmstat", "oom_kill"), 0);
    // Awake they don't fit, and nobody is left to go deeper: the node says so.
    stand.until("told that it is short", || !stand.events(EventKind::PoolShort).is_empty());
    assert!(stand.daemon.status().unwrap().node.short_bytes > 0);
}
