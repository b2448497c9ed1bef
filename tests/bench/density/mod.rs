//! How many real servers a budget of memory holds, always awake and asleep by the real daemon, while players come as over
//! a day that is replayed in minutes; and the same worked out by a model from what one server weighs.

mod fleet;
mod model;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use dormouse_tests::{netns::Netns, swap::Swap, topology::Node};
use nix::sys::statvfs::statvfs;

use self::fleet::{Door, Fleet, Kind, limits};
use self::model::{HOURS, Inputs, arrivals};
use crate::{
    report::{Figure, Goal},
    stats::{Estimate, quantile},
};

const MIB: f64 = (1 << 20) as f64;
/// Where the bench's swap file lies, and the part of what is free there that it takes.
const DISK: &str = "/var/tmp";
const ROOM_TAKEN: f64 = 2.0 / 3.0;
const DOZE_AFTER_S: u32 = 2;
const DEEP_AFTER_S: u32 = 1;
/// A join, its settling and its way down, beside the two: as seen.
const ON_THE_WAY_S: f64 = 2.0;
/// So long a full node is asked whether a player's server has gone to sleep again.
const ROOM_WITHIN: Duration = Duration::from_secs(20);

/// MiB of swap that a MiB of the budget needs: seven times the servers, nearly all of each anonymous, in the half of the
/// swap that can be swept without `memory.reclaim`.
const SWAP_FOR_ONE: f64 = 15.0;

struct Scale {
    budget_mib: f64,
    /// Pods made in advance: no more servers than this.
    most: u8,
    day: Duration,
    /// Players a day, all servers together: what two cores can start beside the servers.
    joins: f64,
    /// A fleet that is not full after this is not filled further.
    fill_within: Duration,
}

const FULL: Scale = Scale {
    budget_mib: 2048.0,
    most: 240,
    day: Duration::from_mins(10),
    joins: 300.0,
    fill_within: Duration::from_mins(20),
};
const QUICK: Scale = Scale {
    budget_mib: 320.0,
    most: 40,
    day: Duration::from_secs(90),
    joins: 24.0,
    fill_within: Duration::from_secs(90),
};

/// What a fleet and its players did.
struct Seen {
    servers: usize,
    /// How many there were when the budget was first seen used up.
    at_first_full: Option<usize>,
    /// What ended the filling, if not the budget.
    cut: Option<&'static str>,
    joins: Vec<(Kind, f64)>,
    failed: u64,
    peak_mib: f64,
    mean_mib: f64,
    daemon_mib: f64,
}

pub fn run(quick: bool) -> Result<Vec<Figure>> {
    let mut scale = if quick { QUICK } else { FULL };
    let disk = statvfs(DISK)?;
    let room_mib = (disk.blocks_available() * disk.fragment_size()) as f64 / MIB * ROOM_TAKEN;
    scale.budget_mib = scale.budget_mib.min(room_mib / SWAP_FOR_ONE).floor();
    println!(
        "a budget of {} MiB ({room_mib:.0} MiB of the disk may become swap); a day of {:?} with {} joins; hours' shares {HOURS:?}; doze_after {DOZE_AFTER_S} s, deep_after \
         {DEEP_AFTER_S} s",
        scale.budget_mib, scale.day, scale.joins
    );
    let _swap = Swap::ensure((scale.budget_mib * SWAP_FOR_ONE) as u64)?;
    let awake = fill_and_play(&scale, false)?;
    let asleep = fill_and_play(&scale, true)?;

    let model = Inputs {
        budget_mib: scale.budget_mib,
        daemon_mib: asleep.daemon_mib,
        awake_mib: awake.mean_mib,
        deep_mib: asleep.mean_mib,
        joins_per_server_day: scale.joins / asleep.servers as f64,
        day: scale.day.as_secs_f64(),
        awake_for: f64::from(DOZE_AFTER_S + DEEP_AFTER_S) + ON_THE_WAY_S,
    };
    println!("model: {model:?}: {} always awake, {} with sleep", model.always_awake(), model.asleep());
    let evenings = Inputs { joins_per_server_day: 4.0, day: 86_400.0, awake_for: 75.0 * 60.0, ..model };
    println!(
        "model, four visits a server and day that keep it up for 75 min each: {} always awake, {} with sleep",
        evenings.always_awake(),
        evenings.asleep()
    );
    let simulated = model.asleep() as f64 / model.always_awake() as f64;
    let ratio = asleep.servers as f64 / awake.servers as f64;
    let first = |seen: &Seen| seen.at_first_full.unwrap_or(seen.servers) as f64;
    let gib = scale.budget_mib / 1024.0;
    let exact = |name, value| Figure::new(name, Estimate::exact(value), Goal::Reported);
    let joined = |seen: &Seen, q| quantile(&seen.joins.iter().map(|(_, ms)| *ms).collect::<Vec<_>>(), q);
    Ok(vec![
        Figure::new("servers_ratio", Estimate::exact(ratio), Goal::AtLeast(5.0)),
        Figure::count("failed_joins", awake.failed + asleep.failed),
        exact("servers_per_gib_awake", awake.servers as f64 / gib),
        exact("servers_per_gib", asleep.servers as f64 / gib),
        exact("join_p50_ms", joined(&asleep, 0.5)),
        exact("join_p99_ms", joined(&asleep, 0.99)),
        exact("awake_join_p50_ms", joined(&awake, 0.5)),
        exact("awake_join_p99_ms", joined(&awake, 0.99)),
        exact("servers_ratio_at_first_full", first(&asleep) / first(&awake)),
        exact("peak_of_budget", asleep.peak_mib / scale.budget_mib),
        exact("simulated_ratio", simulated),
    ])
}

/// Starts servers until the budget is full, and lets players come until the day is over too; a third of a day where nobody
/// sleeps, which gives joins enough to compare with.
fn fill_and_play(scale: &Scale, with_daemon: bool) -> Result<Seen> {
    let node = Node::create(scale.most)?;
    let mut fleet = Fleet::new(&node, with_daemon)?;
    let (day, joins) =
        if with_daemon { (scale.day, scale.joins) } else { (scale.day / 3, scale.joins / 3.0) };
    let doors = Mutex::new(vec![]);
    let done = AtomicBool::new(false);
    let begun = Instant::now();
    let who = if with_daemon { "with dormouse" } else { "always awake" };
    let mut seen = Seen {
        servers: 0,
        at_first_full: None,
        cut: None,
        joins: vec![],
        failed: 0,
        peak_mib: 0.0,
        mean_mib: 0.0,
        daemon_mib: 0.0,
    };
    let filled = thread::scope(|scope| {
        let players = scope.spawn(|| play(&node.client, day, joins, &doors, &done));
        let filled = fill(&node, scale, &mut fleet, &doors, &mut seen).and_then(|()| {
            println!("{who}: {} servers after {:.0?}: {}", fleet.len(), begun.elapsed(), fleet.told()?);
            // The rest of the day, full.
            while begun.elapsed() < day {
                seen.peak_mib = seen.peak_mib.max(fleet.weight()? as f64 / MIB);
                thread::sleep(Duration::from_secs(1));
            }
            Ok(())
        });
        done.store(true, Relaxed);
        players.join().map(|played| (filled, played))
    });
    let (filled, played) = filled.map_err(|_| anyhow!("the players panicked"))?;
    filled?;
    (seen.joins, seen.failed) = played;
    // All asleep again: what one weighs.
    if with_daemon {
        thread::sleep(Duration::from_secs(u64::from(DOZE_AFTER_S + DEEP_AFTER_S) + 5));
    }
    seen.servers = fleet.len();
    seen.mean_mib = fleet.mean_weight()? / MIB;
    seen.daemon_mib = fleet.daemon_weight()? as f64 / MIB;
    println!(
        "{who}: {} servers{}, {:.1} MiB each, daemon {:.1} MiB, peak {:.0} MiB, {} joins, {} failed, {} ended; {}",
        seen.servers,
        seen.cut.map(|by| format!(" (ended by {by}, not by the budget)")).unwrap_or_default(),
        seen.mean_mib,
        seen.daemon_mib,
        seen.peak_mib,
        seen.joins.len(),
        seen.failed,
        fleet.ended(),
        fleet.told()?
    );
    for kind in fleet::KINDS {
        let of: Vec<f64> = seen.joins.iter().filter(|(of, _)| *of == kind).map(|(_, ms)| *ms).collect();
        println!(
            "{who}: {kind:?}: {} joins, p50 {:.1} ms, p99 {:.1} ms",
            of.len(),
            quantile(&of, 0.5),
            quantile(&of, 0.99)
        );
    }
    Ok(seen)
}

/// One more as long as what is weighed before its start is below the budget. A full node is asked again for a while: the
/// server of the last player may fall asleep.
fn fill(
    node: &Node,
    scale: &Scale,
    fleet: &mut Fleet,
    doors: &Mutex<Vec<Door>>,
    seen: &mut Seen,
) -> Result<()> {
    let limits = limits(DOZE_AFTER_S, DEEP_AFTER_S);
    let begun = Instant::now();
    let with_daemon = fleet.has_daemon();
    let mut full_since: Option<Instant> = None;
    while fleet.len() < usize::from(scale.most) {
        let weight = fleet.weight()? as f64 / MIB;
        seen.peak_mib = seen.peak_mib.max(weight);
        if weight >= scale.budget_mib {
            seen.at_first_full.get_or_insert(fleet.len());
            // Nobody falls asleep there.
            if !with_daemon {
                return Ok(());
            }
            if full_since.get_or_insert_with(Instant::now).elapsed() > ROOM_WITHIN {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(500));
            continue;
        }
        full_since = None;
        if begun.elapsed() > scale.fill_within {
            seen.cut = Some("the time");
            return Ok(());
        }
        let Some(door) = fleet.start_next(node, &limits)? else {
            seen.cut = Some("a server that does not go deep");
            return Ok(());
        };
        doors.lock().unwrap_or_else(PoisonError::into_inner).push(door);
    }
    seen.cut = Some("the number of addresses made");
    Ok(())
}

/// A day's players, and the next day's, until it is done: kind and milliseconds of each join, and how many failed.
fn play(
    client: &Netns,
    day: Duration,
    joins: f64,
    doors: &Mutex<Vec<Door>>,
    done: &AtomicBool,
) -> (Vec<(Kind, f64)>, u64) {
    let pattern = arrivals(joins, day.as_secs_f64());
    let (mut joins, mut failed) = (vec![], 0);
    let begun = Instant::now();
    for player in 0.. {
        let (at, draw) = pattern[player % pattern.len()];
        let at =
            day * u32::try_from(player / pattern.len()).unwrap_or(u32::MAX) + Duration::from_secs_f64(at);
        while begun.elapsed() < at && !done.load(Relaxed) {
            thread::sleep(Duration::from_millis(20));
        }
        if done.load(Relaxed) {
            break;
        }
        let door = {
            let doors = doors.lock().unwrap_or_else(PoisonError::into_inner);
            doors.get((draw * doors.len() as f64) as usize).cloned()
        };
        let Some(door) = door else { continue };
        match door.join(client, &format!("p{player}")) {
            Ok(took) => joins.push((door.kind, took.as_secs_f64() * 1e3)),
            Err(error) => {
                println!("{:?} at {}: {error:#}", door.kind, door.to);
                failed += 1;
            }
        }
    }
    (joins, failed)
}
