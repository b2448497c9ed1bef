//! One core sends SYNs from invented sources at a sleeping server through a host port: the node's conntrack sees
//! each before the door does. What the door adds to a SYN's cost, what the daemon's memory grows by, and whether
//! players get in, at this server and at another.

use std::{
    fs,
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use aya::programs::TcAttachType;
use dormouse_tests::{
    cgroup::Cgroup,
    clients::{
        self,
        flood::{Flood, What},
    },
    cpus,
    process::Place,
    servers::echo,
    stand::{PORT, Stand},
    topology::{NODE, Road, Transport},
    weight::Scale,
};

use crate::{
    fastpath,
    report::{Figure, Goal},
    stats::{Estimate, bootstrap, median, quantile},
};

/// Ports of the node: the flooded sleeper, another one, and a server behind the empty program.
const FLOODED: u16 = 25001;
const OTHER: u16 = 25002;
const EMPTY: u16 = 25003;
/// SYNs a slice of a round, four slices a round.
const SLICE: u32 = 1000;
/// A player who waits longer has given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// `nf_conntrack_max` for the run: it counts in every namespace apart, but is set for all at once.
struct ConntrackMax {
    before: String,
}

const CONNTRACK_MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
/// Low, so that twice as many take seconds; far above what anything else on a test machine has.
const MAX: u64 = 65_536;

impl ConntrackMax {
    fn set() -> Result<Self> {
        let before = fs::read_to_string(CONNTRACK_MAX).context("conntrack's limit")?;
        fs::write(CONNTRACK_MAX, MAX.to_string()).context("set conntrack's limit")?;
        Ok(Self { before })
    }
}

impl Drop for ConntrackMax {
    fn drop(&mut self) {
        if let Err(error) = fs::write(CONNTRACK_MAX, &self.before) {
            eprintln!("bench: nf_conntrack_max stays at {MAX}: {error}");
        }
    }
}

/// Measures.
pub fn run(quick: bool) -> Result<Vec<Figure>> {
    let _max = ConntrackMax::set()?;
    let scale = Scale::new()?;
    let mut stand = Stand::prepare(2, "")?;
    stand.node.add_pod()?;
    stand.node.expect_floods()?;
    let empty_cgroup = Cgroup::create("empty")?;
    let _empty_server = echo::start(Place::new(&stand.node.pods[2].netns, &empty_cgroup), PORT)?;
    for (pod, port) in [(0, FLOODED), (1, OTHER), (2, EMPTY)] {
        stand.node.publish(pod, Road::HostPort, Transport::Tcp, port, PORT)?;
    }
    let command = scale.put(&stand.daemon.command()?);
    stand.start_as(command)?;
    let mut programs = fastpath::Stand::new()?;
    let veth = stand.node.pods[2].host_veth.clone();
    let program = programs.door.program("empty")?;
    program.load()?;
    let _link = stand.node.netns.run(|| program.attach(&veth, TcAttachType::Egress))?;
    empty_cgroup.freeze(true)?;
    stand.doze_all()?;
    thread::sleep(Duration::from_secs(2));
    let before = scale.bytes()?;

    let rounds = if quick { 4 } else { MAX / u64::from(4 * SLICE) };
    let samples = compare(&stand, rounds)?;
    let ratio =
        bootstrap(&samples, |drawn| median(&drawn.iter().map(|round| round.0 / round.1).collect::<Vec<_>>()));
    let cost = |which: fn(&(f64, f64)) -> f64| median(&samples.iter().map(which).collect::<Vec<_>>());
    println!("a SYN: {:.0} ns with the door, {:.0} ns with an empty program", cost(|r| r.0), cost(|r| r.1));
    told(&stand, "when the limit is near")?;

    let sent = AtomicU64::new(rounds * u64::from(4 * SLICE));
    let wanted = if quick { 20_000 } else { 2 * MAX };
    let (failed, times) = join_meanwhile(&stand, &sent, wanted, if quick { 2 } else { 5 })?;
    println!("{} SYNs sent", sent.load(SeqCst));
    told(&stand, "after twice the limit")?;
    let growth = scale.bytes()?.saturating_sub(before) as f64 / f64::from(1 << 20);
    Ok(vec![
        Figure::new("empty_program_ratio", ratio, Goal::Reported),
        Figure::new("memory_growth_mib", Estimate::exact(growth), Goal::AtMost(1.0)),
        Figure::count("join_failed", failed),
        Figure::new("join_p50_ms", Estimate::exact(quantile(&times, 0.5)), Goal::Reported),
        Figure::new("join_slowest_ms", Estimate::exact(quantile(&times, 1.0)), Goal::Reported),
    ])
}

fn host_port(port: u16) -> SocketAddr {
    SocketAddr::new(NODE[0], port)
}

/// Nanoseconds of a SYN by round, with the door and with the empty program: all of its way runs on the sender's
/// core, from the sender's call to the server's listener and the answer's way back.
fn compare(stand: &Stand, rounds: u64) -> Result<Vec<(f64, f64)>> {
    let mut floods = [FLOODED, EMPTY].map(|port| Flood::at(&stand.node, host_port(port)));
    thread::scope(|scope| {
        scope
            .spawn(move || -> Result<Vec<(f64, f64)>> {
                stay_on_one_core()?;
                let mut samples = vec![];
                for _ in 0..rounds {
                    let mut arms = [0.0; 2];
                    for arm in [0, 1, 1, 0] {
                        let flood = floods[arm].as_mut().map_err(|error| anyhow::anyhow!("{error:#}"))?;
                        let began = Instant::now();
                        for _ in 0..SLICE {
                            flood.send(What::Syn)?;
                        }
                        arms[arm] += began.elapsed().as_nanos() as f64 / f64::from(2 * SLICE);
                    }
                    samples.push((arms[0], arms[1]));
                }
                Ok(samples)
            })
            .join()
            .expect("the sender returns")
    })
}

/// Floods on until `wanted` SYNs were sent and every player has come: how many did not get in, and how long the
/// others took, milliseconds.
fn join_meanwhile(stand: &Stand, sent: &AtomicU64, wanted: u64, times: u32) -> Result<(u64, Vec<f64>)> {
    let done = AtomicBool::new(false);
    let mut flood = Flood::at(&stand.node, host_port(FLOODED))?;
    thread::scope(|scope| {
        let done = &done;
        let flooding = scope.spawn(move || -> Result<()> {
            stay_on_one_core()?;
            while !done.load(SeqCst) || sent.load(SeqCst) < wanted {
                for _ in 0..SLICE {
                    flood.send(What::Syn)?;
                }
                sent.fetch_add(u64::from(SLICE), SeqCst);
            }
            Ok(())
        });
        let joined = (|| {
            let (mut failed, mut took) = (0, vec![]);
            for _ in 0..times {
                for (index, port) in [(0, FLOODED), (1, OTHER)] {
                    stand.doze(index)?;
                    let began = Instant::now();
                    let join = || clients::echo::tcp(host_port(port), b"let me in", PATIENCE);
                    match stand.node.client.run(join) {
                        Ok(_) => took.push(began.elapsed().as_secs_f64() * 1e3),
                        Err(error) => {
                            println!("no join at {port}: {error:#}");
                            failed += 1;
                        }
                    }
                }
            }
            anyhow::Ok((failed, took))
        })();
        done.store(true, SeqCst);
        flooding.join().expect("the flood ends")?;
        joined
    })
}

/// The last core: the flood's, and with it what the kernel does for it.
fn stay_on_one_core() -> Result<()> {
    cpus::stay_on(*cpus::allowed()?.last().context("no CPU at all")?)
}

/// What the node's conntrack says of itself.
fn told(stand: &Stand, when: &str) -> Result<()> {
    let count = stand.node.netns.read("/proc/sys/net/netfilter/nf_conntrack_count")?;
    let stat = stand.node.netns.read("/proc/thread-self/net/stat/nf_conntrack")?;
    let mut lines = stat.lines().map(|line| line.split_whitespace());
    let names: Vec<&str> = lines.next().context("conntrack's columns")?.collect();
    let mut sums = vec![0u64; names.len()];
    for line in lines {
        for (sum, word) in sums.iter_mut().zip(line) {
            *sum += u64::from_str_radix(word, 16).unwrap_or(0);
        }
    }
    let interesting = ["insert_failed", "drop", "early_drop", "invalid"];
    let counted: Vec<String> = names
        .iter()
        .zip(&sums)
        .filter(|(name, _)| interesting.contains(name))
        .map(|(name, sum)| format!("{name} {sum}"))
        .collect();
    println!("conntrack {when}: {} of {MAX} entries, {}", count.trim(), counted.join(", "));
    println!("its INVALID rule: {:?}", stand.node.invalid_packets()?);
    Ok(())
}
