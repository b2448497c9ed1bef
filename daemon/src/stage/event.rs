//! What the stage machine is told: observations, answers to its orders, and operators' words.

use std::{net::SocketAddr, time::Duration};

use dormouse_packet::Class;

use super::Evidence;
use crate::limits::{Limits, Mode};

/// Something that happened. Every order ([`super::Action`]) is answered exactly once, by the event that its
/// documentation names; `Knock` and `Woken` may also come unasked and in any order, since the door wakes a
/// server for a player before the machine hears of it.
#[derive(Clone, Debug)]
pub enum Event {
    /// A fresh look at the server. Decisions to fall asleep are taken on these only.
    Observed(Observation),
    /// Answers `GatherEvidence`.
    Evidence(Evidence),
    /// Answers `EnterDoze`: gate parks, server frozen or throttled.
    DozeDone,
    /// Answers `EnterDoze`: the server is awake and its gate open, for this reason.
    DozeAborted {
        reason: String,
    },
    /// Answers `GoDeep`; bytes handed back.
    DeepDone {
        bytes: u64,
    },
    /// Answers `GoDeep` when stopped or failed: the server is still dozing.
    DeepAborted {
        reason: String,
    },
    /// Answers `QueryThaw`: the server is frozen again.
    ThawDone,
    /// The door saw a packet for a sleeping server and classified it.
    Knock {
        class: Class,
        from: Option<SocketAddr>,
    },
    /// Answers `Wake`, or comes unasked from the door's own wake for a player: server runs, gate open.
    Woken,
    /// Answers `Wake`; it is tried again.
    WakeFailed {
        reason: String,
    },
    /// Answers `StartCanary`.
    CanaryOk,
    /// Answers `StartCanary`: the server did not become ready after the wake.
    CanaryFailed {
        reason: String,
    },
    /// An operator says sleep; answered by exactly one `Action::Answer`.
    Sleep {
        deep: bool,
    },
    /// An operator says wake, and perhaps keep.
    Wake {
        keep: Option<Kept>,
    },
    /// An operator forbids sleep; a sleeping server is woken.
    Keep(Kept),
    /// An operator allows sleep again.
    Release,
    /// `enable` after the cause of a demotion was cured: the demotion is lifted.
    Pardon,
    SetMode(Mode),
    SetLimits(Limits),
    /// SIGTERM on its way to the server, or its pod is being deleted: it must run to save its world.
    ServerStopping,
    /// No process is left.
    ServerGone,
    /// The server's process is another one than before, started at this time.
    ServerStarted {
        at: Duration,
    },
    /// The pool wants memory back from this server now: deep without waiting for `deep_after`.
    PoolLow,
    /// The node is under memory or I/O pressure: page-out stops.
    Pressure,
}

/// A look at one server. Times are on the boot clock (CLOCK_BOOTTIME), as all times of this module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observation {
    /// The last packet of class `player` at the door.
    pub last_player: Option<Duration>,
    /// CPU used since the last look, in percent of one core.
    pub cpu_percent: u32,
    /// What `cgroup.events` says. Others write `cgroup.freeze` too, so it is looked at, never assumed.
    pub frozen: bool,
    /// Its gate is not open. At odds with the stage, that is a report gone astray: the machine wakes.
    pub gate_shut: bool,
    /// cpu.max exists for this server's cgroup; without it there is no throttle.
    pub cpu_controller: bool,
    /// Anything else that forbids sleep now: the door is not on the path, a relayed game, the operator's
    /// `windows`, a profile that refuses.
    pub obstacle: Option<Obstacle>,
    /// Anything that forbids deep only: the day's budget of writes. Not while the node is short of memory.
    pub deep_obstacle: Option<Obstacle>,
    /// The listener's accept queue, where it was looked at.
    pub accept_queue: Option<AcceptQueue>,
}

/// Why a server may not sleep (or not deep), found outside of this module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// Machine-readable, kebab-case, stable.
    pub code: &'static str,
    /// One sentence for the operator, with the remedy.
    pub text: String,
}

/// What sock_diag says of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptQueue {
    /// Connections that wait for `accept`.
    pub waiting: u32,
    pub backlog: u32,
}

/// An operator forbids sleep. It stands beside the stage and is not one.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Kept {
    pub owner: String,
    pub reason: String,
    /// On the boot clock; `None` = until released.
    pub until: Option<Duration>,
}
