//! What the stage machine orders or says.

use std::{fmt, net::SocketAddr, time::Duration};

use dormouse_packet::Class;

use super::{Demotion, Refusal, Stage};
use crate::limits::DozeBy;

/// An order for one server, or a notice. Orders are carried out one after the other and answered by the
/// event named; `Wake` is idempotent, and overtakes an `EnterDoze` or `GoDeep` by making it stop.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Find out how it may sleep. With `run_hook`, run `before_doze` first. Answer: `Evidence`, in bounded
    /// time (`save_wait`).
    GatherEvidence { run_hook: bool },
    /// Gate to signal, freeze or throttle, look again, gate to park. Answer: `DozeDone` or `DozeAborted`.
    EnterDoze { by: DozeBy },
    /// Page out. Answer: `DeepDone` or `DeepAborted`.
    GoDeep,
    /// Stop the page-out at the next step. `GoDeep` is still answered.
    StopDeep,
    /// Let the frozen server run for at most `query_thaw`: no wake. Answer: `ThawDone`.
    QueryThaw,
    /// Thaw, bring memory back, replay, open the gate. Answer: `Woken` or `WakeFailed`.
    Wake { cause: Cause },
    /// Run the `after_wake` hook. Also after a doze that was called off, since `before_doze` had run. Not
    /// answered.
    RunAfterWake,
    /// Check, as a player would, that the woken server is ready. Answer: `CanaryOk` or `CanaryFailed`.
    StartCanary,
    /// Notice: from now on it may sleep only this far. To be stored: it outlives a reboot.
    Demote(Demotion),
    /// Notice: the answer to the operator's `Sleep`.
    Answer(Result<Stage, Refusal>),
    /// On paper (mode observe): it would doze now.
    WouldDoze { by: DozeBy },
    /// On paper: it would go deep now.
    WouldGoDeep,
    /// On paper: it would be woken now, out of `from`, entered `after` ago.
    WouldWake { cause: Cause, from: Stage, after: Duration },
    /// On paper: it sleeps, and this knock would not wake it.
    WouldRefuse { class: Class },
}

impl Action {
    /// Whether carrying it out may change anything about the server.
    pub fn touches(&self) -> bool {
        match self {
            Self::GatherEvidence { run_hook } => *run_hook,
            Self::EnterDoze { .. }
            | Self::GoDeep
            | Self::StopDeep
            | Self::QueryThaw
            | Self::Wake { .. }
            | Self::RunAfterWake
            | Self::StartCanary => true,
            Self::Demote(_)
            | Self::Answer(_)
            | Self::WouldDoze { .. }
            | Self::WouldGoDeep
            | Self::WouldWake { .. }
            | Self::WouldRefuse { .. } => false,
        }
    }
}

/// What wakes a server.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// A player's packet: the only cause that counts against `wakes_per_hour`.
    Player {
        from: Option<SocketAddr>,
    },
    Operator,
    /// The sleep is no longer allowed, for this reason.
    NotAllowed(Refusal),
    /// Somebody else thawed its cgroup.
    ThawedByOther,
    /// Its process was replaced or is gone: the gate must open.
    ProcessChanged,
    /// What was reported does not fit what was ordered: awake is the safe side.
    Doubt,
}

impl Cause {
    /// Machine-readable, stable: a metric label.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Player { .. } => "player",
            Self::Operator => "operator",
            Self::NotAllowed(refusal) => refusal.code(),
            Self::ThawedByOther => "thawed-by-other",
            Self::ProcessChanged => "process-changed",
            Self::Doubt => "doubt",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Not from where: this goes into logs and notes, and an address in there is never erased.
            Self::Player { .. } => f.write_str("a player knocked"),
            Self::Operator => f.write_str("an operator said wake"),
            Self::NotAllowed(refusal) => write!(f, "it may not sleep any longer: {refusal}"),
            Self::ThawedByOther => f.write_str("its cgroup was thawed by somebody else"),
            Self::ProcessChanged => f.write_str("its process ended or was replaced"),
            Self::Doubt => f.write_str("a doze ended in an unclear state, awake is the safe side"),
        }
    }
}
