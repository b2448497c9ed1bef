//! One server as the agent knows it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use dormouse_abi::server::Counters;
use dormouse_api::{command::Phases, why};
use tokio::sync::oneshot;

use super::{bring_up::Brought, clock::boot_now, device::Recorded, signs::EndWatch, waiting::Waiting};
use crate::{
    config, failpoint,
    memory::regions::Skip,
    sleep::Woken,
    stage::{Machine, Refusal, Stage},
};

/// How long a server that was not found is left alone.
const RETRY: Duration = Duration::from_secs(5);

/// A server and everything that is going on with it.
pub struct Managed {
    pub config: Arc<config::Server>,
    pub slot: u32,
    pub presence: Presence,
    /// Rises with every bring-up: an answer that belongs to an earlier process is dropped.
    pub generation: u64,
    pub next_look: Instant,
    pub cpu: Option<(Instant, Duration)>,
    /// Connections were made to it that it may not have accepted yet: its accept queue is to be looked at.
    pub connections_came: bool,
    /// When at the latest, whatever else happens to it before; `None`: with the next usual look.
    pub look_at_queue: Option<Instant>,
    pub history: History,
    /// How long to wait before its road is looked at again.
    road_wait: Duration,
    /// Clients whose bytes were noise, to be hung up on together.
    pub strangers: BTreeSet<SocketAddr>,
    /// Clients who may be players.
    pub waiting: Waiting,
    /// Operators who wait for the answer to `sleep`.
    pub asked_to_sleep: Vec<oneshot::Sender<Result<Stage, Refusal>>>,
    /// Operators who wait until it is awake.
    pub asked_to_wake: Vec<oneshot::Sender<()>>,
}

/// Whether the server is there.
pub enum Presence {
    /// Being looked for.
    Looking,
    /// Not there, or not to be watched, for this reason; looked for again at that time.
    Absent {
        reason: String,
        again: Instant,
    },
    Here(Box<Here>),
}

/// A server that is there.
pub struct Here {
    pub brought: Brought,
    pub machine: Machine,
    /// Says when its process ends.
    #[expect(dead_code, reason = "it waits until it is dropped")]
    pub end: Option<EndWatch>,
    /// When a road that misses the door is looked at again.
    pub look_at_road: Option<Instant>,
}

/// What is remembered for `status` and `why`.
#[derive(Default)]
pub struct History {
    /// What it held when it fell asleep last, bytes.
    pub size_bytes: u64,
    pub handed_back: Option<HandedBack>,
    /// What its wakes touch.
    pub recorded: Recorded,
    /// What its last page-out wrote, bytes; `None`: no such yet.
    pub last_written: Option<u64>,
    /// Memory that its last page-out left alone, by reason; bytes.
    pub left_alone: BTreeMap<Skip, u64>,
    /// Parked packets that had come to nothing by then.
    pub expired_then: u64,
    /// The counters when the present stage began.
    pub counters_then: Counters,
    pub last_wake: Option<why::LastWake>,
    /// Wakes whose first answer is still to come.
    pub answer_awaited: Option<AwaitedAnswer>,
    pub woken_from: Option<Stage>,
    pub save: Option<why::Save>,
    pub watchdog: Option<String>,
    /// In mode observe: what would have been done.
    pub paper: Option<String>,
    pub scan_addresses: std::collections::BTreeSet<std::net::IpAddr>,
}

#[derive(Clone, Copy, Debug)]
pub struct HandedBack {
    pub bytes: u64,
    pub estimated: bool,
    pub written_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct AwaitedAnswer {
    pub woken: Woken,
    pub until: Instant,
}

impl Managed {
    pub fn new(config: Arc<config::Server>, slot: u32) -> Self {
        let now = Instant::now();
        Self {
            config,
            slot,
            presence: Presence::Absent { reason: "not looked for yet".to_owned(), again: now },
            generation: 0,
            next_look: now,
            cpu: None,
            connections_came: false,
            look_at_queue: None,
            history: History::default(),
            road_wait: RETRY,
            strangers: BTreeSet::new(),
            waiting: Waiting::default(),
            asked_to_sleep: vec![],
            asked_to_wake: vec![],
        }
    }

    pub fn here(&self) -> Option<&Here> {
        match &self.presence {
            Presence::Here(here) => Some(here),
            _ => None,
        }
    }

    pub fn here_mut(&mut self) -> Option<&mut Here> {
        match &mut self.presence {
            Presence::Here(here) => Some(here),
            _ => None,
        }
    }

    /// Not found: left alone for a while.
    pub fn absent(&mut self, reason: String) {
        self.presence = Presence::Absent { reason, again: Instant::now() + RETRY };
    }

    /// When to look again at the road of a server that was just found: a pod's network may still be in the
    /// making, but each look costs a second of test datagrams. `None` = the road is right.
    pub fn plan_road(&mut self, misses_the_door: bool) -> Option<Instant> {
        const LONGEST: Duration = Duration::from_mins(10);
        let wait = self.road_wait;
        self.road_wait = if misses_the_door { (wait * 2).min(LONGEST) } else { RETRY };
        misses_the_door.then(|| Instant::now() + wait)
    }

    /// A connection was made to it: its accept queue is looked at soon, however many come.
    pub fn connection_came(&mut self) {
        const LOOK_AT_QUEUE: Duration = Duration::from_millis(250);
        self.connections_came = true;
        let at = *self.look_at_queue.get_or_insert_with(|| Instant::now() + LOOK_AT_QUEUE);
        self.next_look = self.next_look.min(at);
    }

    /// Parked packets that came to nothing: too old, too many, or sent again.
    pub fn expired(&self) -> u64 {
        self.here().map_or(0, |here| here.brought.sleeper.expired.load(SeqCst))
    }

    /// The stage that it is really in.
    pub fn stage(&self) -> Stage {
        self.here().map_or(Stage::Awake, |here| here.machine.stage())
    }

    /// When to look at it next: when its machine wants, at the latest after the usual while.
    pub fn plan_next_look(&mut self) {
        const AWAKE: Duration = Duration::from_secs(5);
        const ASLEEP: Duration = Duration::from_secs(10);
        const SOON: Duration = Duration::from_millis(50);
        let Some(here) = self.here() else { return };
        let usual = if here.machine.stage().by().is_some() { ASLEEP } else { AWAKE };
        let usual = failpoint::look_every().unwrap_or(usual);
        let deadline = here.machine.next_deadline().map(|at| at.saturating_sub(boot_now()).max(SOON));
        let wait = deadline.map_or(usual, |deadline| deadline.min(usual));
        let next = Instant::now() + wait;
        self.next_look = self.look_at_queue.map_or(next, |at| at.min(next));
    }
}

/// The phases of a wake for people and machines, counted from the knock (or the decision).
pub fn phases(woken: &Woken, answer_ns: Option<u64>) -> Phases {
    let from = woken.knocked_ns.unwrap_or(woken.decided_ns);
    let since = |at: u64| Some(at.saturating_sub(from));
    Phases {
        decided_ns: since(woken.decided_ns),
        thawed_ns: since(woken.thawed_ns),
        first_answer_ns: answer_ns.and_then(since),
        working_set_ns: None,
    }
}
