//! What reaches every public port, at real servers that sleep: it must wake nobody, every status ping must be
//! answered, and players must get in afterwards. The real daemon decides.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use dormouse_api::{
    event::{EventFilter, EventKind},
    status::Stage,
};
use dormouse_tests::{
    cgroup::Cgroup,
    clients::{
        self,
        scan::{self, Probe},
    },
    daemon::{Daemon, QUICK, ServerFile},
    process::Place,
    servers::{self, Server},
    topology::{CLIENT, NODE, Node, Road, Transport},
};

use crate::report::Figure;

const MINECRAFT: u16 = 25565;
const LUANTI: u16 = 30000;
const DDNET: u16 = 8303;
/// Scanners at work at once.
const SCANNERS: u64 = 8;
/// How long a scanner listens; the answer to a SYN comes at once.
const SYN_WAIT: Duration = Duration::from_millis(50);
const LISTEN: Duration = Duration::from_millis(100);
/// One probe in a hundred waits longer than the servers' patience (3 s) for a banner.
const LISTEN_LONG: Duration = Duration::from_secs(4);
const PING_EVERY: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_mins(1);

/// Name, profile, port.
const SERVERS: [(&str, &str, &str); 3] = [
    ("bench/minecraft", "minecraft-java", "tcp/25565"),
    ("bench/luanti", "luanti", "udp/30000"),
    ("bench/ddnet", "ddnet", "udp/8303"),
];

struct Stand {
    daemon: Daemon,
    _servers: Vec<Server>,
    _cgroups: Vec<Cgroup>,
    node: Node,
}

/// Measures.
pub fn run(quick: bool) -> Result<Vec<Figure>> {
    let stand = Stand::new()?;
    for (name, ..) in SERVERS {
        stand.daemon.sleep(name, false)?;
    }
    for (name, ..) in SERVERS {
        stand.daemon.wait_for(name, Stage::Dozing, SOON)?;
    }
    let since = stand.asleep_since()?;
    println!("asleep; scanning");
    let began = Instant::now();
    let (pings, unanswered) = stand.scan(if quick { 1_000 } else { 10_000 })?;
    let false_wakes = stand.wakes(&since)?;
    println!("scanned for {:.0?}, {pings} pings, {false_wakes} false wakes", began.elapsed());
    for (name, ..) in SERVERS {
        let refused = stand.daemon.why(name)?.refused;
        println!("{name}: {refused:?}");
    }
    Ok(vec![
        Figure::count("false_wakes", false_wakes),
        Figure::count("pings_unanswered", unanswered),
        Figure::count("joins_failed", stand.join()),
    ])
}

impl Stand {
    fn new() -> Result<Self> {
        let node = Node::create(3)?;
        let (mut cgroups, mut servers) = (vec![], vec![]);
        let starts: [fn(Place<'_>) -> Result<Server>; 3] = [
            |place| servers::minecraft::start(place, MINECRAFT),
            |place| servers::luanti::start(place, LUANTI),
            |place| servers::ddnet::start(place, DDNET),
        ];
        let roads = [(Transport::Tcp, MINECRAFT), (Transport::Udp, LUANTI), (Transport::Udp, DDNET)];
        for (index, (start, (transport, port))) in starts.into_iter().zip(roads).enumerate() {
            let cgroup = Cgroup::create("game")?;
            servers.push(start(Place::new(&node.pods[index].netns, &cgroup))?);
            cgroups.push(cgroup);
            node.publish(index, Road::HostPort, transport, port, port)?;
        }
        let mut daemon = Daemon::prepare()?;
        for ((name, profile, port), cgroup) in SERVERS.into_iter().zip(&cgroups) {
            daemon.manage(&ServerFile { name, profile, cgroup, ports: &[port], limits: QUICK })?;
        }
        daemon.start(&node.netns)?;
        for (name, ..) in SERVERS {
            daemon.wait_for(name, Stage::Awake, SOON)?;
        }
        Ok(Self { daemon, _servers: servers, _cgroups: cgroups, node })
    }

    /// `scans` knocks of all kinds, in equal shares, and a ping to each server every two seconds meanwhile;
    /// gives back how many pings there were and how many had no answer.
    fn scan(&self, scans: u64) -> Result<(u64, u64)> {
        let (next, done) = (AtomicU64::new(0), AtomicBool::new(false));
        let (pings, unanswered) = (AtomicU64::new(0), AtomicU64::new(0));
        let failed = Mutex::new(None);
        thread::scope(|scope| {
            for ping in [ping_minecraft as fn() -> Result<()>, ping_luanti, ping_ddnet] {
                let (pings, unanswered, done, client) = (&pings, &unanswered, &done, &self.node.client);
                scope.spawn(move || {
                    client.run(|| {
                        while !done.load(SeqCst) {
                            let due = Instant::now() + PING_EVERY;
                            pings.fetch_add(1, SeqCst);
                            if let Err(error) = ping() {
                                println!("ping: {error:#}");
                                unanswered.fetch_add(1, SeqCst);
                            }
                            thread::sleep(due.saturating_duration_since(Instant::now()));
                        }
                    });
                });
            }
            let scanners: Vec<_> = (0..SCANNERS)
                .map(|_| {
                    scope.spawn(|| {
                        self.node.client.run(|| {
                            loop {
                                let number = next.fetch_add(1, SeqCst);
                                if number >= scans {
                                    return;
                                }
                                if let Err(error) = knock(number) {
                                    failed.lock().expect("no holder panics").get_or_insert(error);
                                }
                            }
                        });
                    })
                })
                .collect();
            for scanner in scanners {
                scanner.join().expect("scanners return");
            }
            // Who only sent half of something is judged after the patience.
            thread::sleep(LISTEN_LONG);
            done.store(true, SeqCst);
        });
        if let Some(error) = failed.into_inner()? {
            println!("a scan could not be made: {error:#}");
        }
        Ok((pings.into_inner(), unanswered.into_inner()))
    }

    /// When each server fell asleep.
    fn asleep_since(&self) -> Result<Vec<u64>> {
        SERVERS.iter().map(|(name, ..)| Ok(self.daemon.server(name)?.since_at_ms)).collect()
    }

    /// The servers' wakes so far: those of the daemon's journal, which forgets the oldest lines, and servers
    /// that are not asleep since then.
    fn wakes(&self, since: &[u64]) -> Result<u64> {
        let events = self.daemon.ask(async |client| {
            let filter = EventFilter { kinds: vec![EventKind::Wake], ..EventFilter::default() };
            let mut events = client.events(&filter).await?;
            let mut all = vec![];
            while let Some(event) = events.next().await? {
                all.push(event);
            }
            Ok(all)
        })?;
        for event in &events {
            println!("false wake: {event:?}");
        }
        let mut moved = 0;
        for ((name, ..), (now, then)) in SERVERS.iter().zip(self.asleep_since()?.iter().zip(since)) {
            if now != then {
                println!("{name} was woken: {:?}", self.daemon.why(name)?.last_wake);
                moved += 1;
            }
        }
        Ok(moved.max(events.len()) as u64)
    }

    fn join(&self) -> u64 {
        let client = &self.node.client;
        let joins: [(&str, &dyn Fn() -> Result<clients::Join>); 3] = [
            ("Minecraft", &|| {
                clients::node::minecraft_join(Place::netns(client), at(MINECRAFT), "bench", Duration::ZERO)
            }),
            ("Luanti", &|| {
                client.run(|| clients::luanti::join(at(LUANTI), "bench", Duration::from_secs(20)))
            }),
            ("DDNet", &|| {
                clients::node::ddnet_join(Place::netns(client), at(DDNET), "bench", Duration::ZERO)
            }),
        ];
        let mut failed = 0;
        for (game, join) in joins {
            match join() {
                Ok(join) => {
                    println!("{game}: first answer {:.0?}, joined {:.0?}", join.first_reply, join.joined);
                }
                Err(error) => {
                    println!("{game}: {error:#}");
                    failed += 1;
                }
            }
        }
        failed
    }
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(NODE[0], port)
}

fn ping_minecraft() -> Result<()> {
    clients::minecraft::status(at(MINECRAFT), TIMEOUT).map(drop)
}

fn ping_luanti() -> Result<()> {
    clients::luanti::ping(at(LUANTI), TIMEOUT).map(drop)
}

fn ping_ddnet() -> Result<()> {
    clients::ddnet::info(at(DDNET), TIMEOUT).map(drop)
}

/// One knock; the number says which kind.
fn knock(number: u64) -> Result<()> {
    let listen = if number % 100 < 3 { LISTEN_LONG } else { LISTEN };
    let probe = [Probe::Http, Probe::Tls, Probe::Random(number)][(number / 4 % 3) as usize];
    match number % 4 {
        0 => {
            let IpAddr::V4(from) = CLIENT[0] else { bail!("the client's first address is IPv4") };
            scan::syn(from, at(MINECRAFT), 1024 + (number % 60_000) as u16, SYN_WAIT).map(drop)
        }
        // A full accept queue refuses a scanner as it refuses anybody: its concern.
        1 => {
            let _ = scan::connect(at(MINECRAFT), TIMEOUT);
            Ok(())
        }
        2 => {
            let _ = scan::tcp_probe(at(MINECRAFT), probe, listen);
            Ok(())
        }
        _ => {
            let port = if (number / 12).is_multiple_of(2) { LUANTI } else { DDNET };
            scan::udp_probe(at(port), probe).context("a UDP probe")
        }
    }
}
