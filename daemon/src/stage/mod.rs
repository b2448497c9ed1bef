//! The stage machine of one server: observations and time in, actions out. No I/O and no clock: the caller
//! brings the time (boot clock, CLOCK_BOOTTIME), carries out the orders, and reports how they went.
//!
//! ```text
//!                      idle for doze_after, no gate closed
//!                    ┌──────────── GatherEvidence ────────────┐
//!                    │                                        ▼
//!        ┌───────► Awake ──────── EnterDoze{by} ──────► (being entered)
//!        │           ▲                                        │ DozeDone
//!  Woken │           │ DozeAborted: backs off                 ▼
//!        │           └────────────────────────────────────  Dozing{by} ◄─┐ DeepAborted:
//!        │                                                    │   │      │ backs off
//!        │      Wake: a player, an operator, a rule           │   └ GoDeep (deep_after, PoolLow)
//!     Waking ◄────────────────────────────────────────────────┤          │ DeepDone
//!      ▲  │                                                   │          ▼
//!      └──┘ WakeFailed: again, ever later                     └──────── Deep{by}
//! ```
//!
//! - A player's knock in any stage but awake leads to `Wake`. The door has mostly woken the server before
//!   that: `Woken` is taken at any time, asked for or not, and `Wake` is idempotent. Where reports
//!   contradict each other, the machine wakes.
//! - Freeze only with evidence (a saved world, no watchdog, no link), else throttle, else awake; each with a
//!   reason. A rule that changes (kept, mode, floor, an obstacle) wakes a server that it no longer allows to
//!   sleep.
//! - A server that dies within [`DEATH_GRACE`] of a wake, or whose canary fails, is demoted one step.
//! - In mode observe the same machine runs on paper: nothing is touched, `Would…` is said instead, and
//!   stages, budget and times go on as if it had been done.
//! - `kept` stands beside the stages.

mod action;
mod budget;
mod demotion;
mod down;
mod erase;
mod event;
mod evidence;
mod gates;
mod hold;
mod machine;
mod refusal;
mod saved;
#[cfg(test)]
mod tests;
mod thaw;
mod up;
mod why;

use std::time::Duration;

pub use action::{Action, Cause};
pub use demotion::{Ceiling, Demotion};
pub use event::{AcceptQueue, Event, Kept, Observation, Obstacle};
pub use evidence::{Evidence, Outbound, Save, Throttled, Watchdog};
use machine::Running;
pub use machine::{Machine, Setup};
pub use refusal::{Refusal, by};
pub use saved::Saved;
pub use why::{Next, Reason, Why};

use crate::limits::DozeBy;

/// Where a server is. `by` is how it was put to doze.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "stage", rename_all = "lowercase")]
pub enum Stage {
    Awake,
    Dozing { by: DozeBy },
    Deep { by: DozeBy },
    Waking,
}

impl Stage {
    /// How it sleeps; `None` = it doesn't.
    pub fn by(self) -> Option<DozeBy> {
        match self {
            Self::Dozing { by } | Self::Deep { by } => Some(by),
            Self::Awake | Self::Waking => None,
        }
    }

    /// The word for operators and metrics (design §1).
    pub fn word(self) -> &'static str {
        match self {
            Self::Awake => "awake",
            Self::Dozing { .. } => "dozing",
            Self::Deep { .. } => "deep",
            Self::Waking => "waking",
        }
    }
}

/// An operator's `sleep` is refused when a player's packet is younger than this (or `doze_after`, if that is
/// shorter): twice the longest keep-alive of the games in the profiles, Minecraft's 15 s.
pub const QUIET: Duration = Duration::from_secs(30);

/// A server that dies this soon after a wake is taken to have died of it: a tick watchdog strikes at the
/// first tick, its crash report and a collection over a paged-out heap take their time.
pub const DEATH_GRACE: Duration = Duration::from_mins(1);

/// No knock for this long is a quiet moment to empty the accept queue in.
const QUIET_DOOR: Duration = Duration::from_secs(1);

/// A failed wake is tried again after this, then after twice as long …
const RETRY_FIRST: Duration = Duration::from_millis(250);
/// … but at least this often: players wait.
const RETRY_LONGEST: Duration = Duration::from_secs(10);

/// Who wants a deeper stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    Time,
    /// Memory is short: doesn't wait for `deep_after`.
    Pool,
    /// Waits for nothing that only time opens.
    Operator,
}
