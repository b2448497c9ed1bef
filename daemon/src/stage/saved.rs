//! What a sleeping server's next daemon must know.

use std::time::Duration;

use super::{Kept, Stage, budget::WakeBudget, evidence::Way};

/// Written as JSON beside the undo log. Its times are on the boot clock, so it is worth nothing after a
/// reboot: the daemon keeps the boot id beside it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Saved {
    pub stage: Stage,
    pub since: Duration,
    pub started_at: Duration,
    pub(super) watched_since: Duration,
    pub(super) last_player: Option<Duration>,
    pub(super) kept: Option<Kept>,
    pub(super) wakes: WakeBudget,
    pub(super) last_wake: Option<Duration>,
    pub(super) way: Option<Way>,
    pub(super) doze_ordered_at: Duration,
}
