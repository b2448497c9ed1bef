//! Why a server is not put to sleep, or not deeper: one code for machines, one sentence for the operator.

use std::time::Duration;

use humantime::format_duration;

use super::{Obstacle, Throttled};

/// Whose keep it is, as refusals, events and answers to commands say it: an erasure looks for this.
pub fn by(owner: &str) -> String {
    format!("by {owner}: ")
}

/// The sentences say nothing of the time of day; [`super::Why`] has the moment when a refusal ends.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error("its process is gone")]
    Gone,
    #[error("it is being stopped and must run to save its world")]
    Stopping,
    #[error("kept {}{reason}", by(.owner))]
    Kept { owner: String, reason: String },
    #[error("mode observe decides on paper only; `dormouse enable` lets it sleep")]
    Observe,
    #[error("its floor is awake")]
    FloorAwake,
    #[error("{}", .0.text)]
    Obstacle(Obstacle),
    #[error("somebody else froze its cgroup")]
    FrozenByOther,
    #[error("it did not stand an earlier wake ({reason}); {cure}")]
    Demoted { reason: String, cure: String },
    #[error("it is being woken")]
    Waking,
    #[error("its first look is still to come")]
    NotObserved,
    #[error("the check after its last wake is not done yet")]
    CanaryRunning,
    #[error("players woke it {per_hour} times within an hour, its limit (wakes_per_hour); it rests awake")]
    WakesSpent { per_hour: u32 },
    #[error("a player was here less than {} ago", format_duration(*.quiet))]
    PlayerHere { quiet: Duration },
    #[error("no player for less than {} (doze_after)", format_duration(*.doze_after))]
    NotIdle { doze_after: Duration },
    #[error("awake for less than {} since its last wake (min_awake)", format_duration(*.min_awake))]
    MinAwake { min_awake: Duration },
    #[error("started less than {} ago (grace_after_start)", format_duration(*.grace))]
    JustStarted { grace: Duration },
    #[error("it works without players: {percent} % of a core, above busy_cpu_percent = {limit}")]
    Busy { percent: u32, limit: u32 },
    #[error("it may only be throttled ({because}), and its cgroup has no v2 cpu controller (no cpu.max)")]
    NoCpuController { because: Throttled },
    #[error("falling asleep was called off: {reason}")]
    DozeFailed { reason: String },
    #[error("mode doze never goes deep")]
    ModeDoze,
    #[error("its floor is dozing")]
    FloorDozing,
    #[error("it has no deep_after")]
    NeverDeep,
    #[error("dozing for less than {} (deep_after)", format_duration(*.deep_after))]
    NotLongDozing { deep_after: Duration },
    #[error("page-out stopped: {reason}")]
    DeepFailed { reason: String },
    #[error("its limits no longer allow the freeze (doze_by = \"throttle\")")]
    FreezeForbidden,
    #[error("another request to sleep is under way")]
    Underway,
    #[error("its settings changed meanwhile; ask again")]
    SettingsChanged,
    #[error("it was woken meanwhile: {cause}")]
    Interrupted { cause: String },
}

impl Refusal {
    /// Machine-readable, kebab-case, stable: metric label and JSON field.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Stopping => "stopping",
            Self::Kept { .. } => "kept",
            Self::Observe => "observe",
            Self::FloorAwake => "floor-awake",
            Self::Obstacle(obstacle) => obstacle.code,
            Self::FrozenByOther => "frozen-by-other",
            Self::Demoted { .. } => "demoted",
            Self::Waking => "waking",
            Self::NotObserved => "not-observed",
            Self::CanaryRunning => "canary-running",
            Self::WakesSpent { .. } => "wakes-spent",
            Self::PlayerHere { .. } => "player-here",
            Self::NotIdle { .. } => "not-idle",
            Self::MinAwake { .. } => "min-awake",
            Self::JustStarted { .. } => "just-started",
            Self::Busy { .. } => "busy-cpu",
            Self::NoCpuController { .. } => "no-cpu-controller",
            Self::DozeFailed { .. } => "doze-failed",
            Self::ModeDoze => "mode-doze",
            Self::FloorDozing => "floor-dozing",
            Self::NeverDeep => "never-deep",
            Self::NotLongDozing { .. } => "not-long-dozing",
            Self::DeepFailed { .. } => "deep-failed",
            Self::FreezeForbidden => "freeze-forbidden",
            Self::Underway => "underway",
            Self::SettingsChanged => "settings-changed",
            Self::Interrupted { .. } => "interrupted",
        }
    }
}
