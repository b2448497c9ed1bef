//! `dormouse why`: the stage, the reason, and what comes next.

use std::{fmt, time::Duration};

use super::{Asker, Cause, Demotion, Kept, Machine, Refusal, Stage, evidence::Throttled};
use crate::limits::Mode;

#[derive(Clone, Debug, PartialEq)]
pub struct Why {
    pub stage: Stage,
    /// When it entered the stage (on paper: the paper stage), on the boot clock.
    pub since: Duration,
    pub reason: Reason,
    /// In mode observe: where it would be.
    pub paper: Option<Stage>,
    pub next: Option<Next>,
    pub last_player: Option<Duration>,
    pub kept: Option<Kept>,
    pub demotion: Option<Demotion>,
    /// What woke it last, or wakes it now.
    pub last_cause: Option<Cause>,
}

/// What time alone will bring, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Evidence is gathered, then it dozes.
    Doze {
        at: Duration,
    },
    Deep {
        at: Duration,
    },
    /// A failed wake is tried again.
    WakeAgain {
        at: Duration,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// Awake, and this keeps it so.
    StaysAwake(Refusal),
    /// Awake, every gate open: the next look begins the doze.
    Due,
    /// Awake: the world is saved and evidence gathered.
    GatheringEvidence,
    /// Awake: the doze is being entered.
    FallingAsleep,
    /// No player for long enough, or an operator said sleep.
    Asleep {
        /// Why it is not frozen.
        throttled: Option<Throttled>,
        /// Dozing, and this keeps it from going deeper.
        not_deeper: Option<Refusal>,
    },
    Waking {
        cause: Cause,
        /// Why the last try failed.
        failed: Option<String>,
    },
}

impl Machine {
    pub fn why(&self) -> Why {
        Why {
            stage: self.stage(),
            since: self.since,
            reason: self.reason(),
            paper: (self.mode == Mode::Observe).then_some(self.stage),
            next: self.next(),
            last_player: self.last_player,
            kept: self.kept.clone(),
            demotion: self.demotion.clone(),
            last_cause: self.cause.clone(),
        }
    }

    fn reason(&self) -> Reason {
        if self.paper {
            return Reason::StaysAwake(Refusal::Observe);
        }
        match self.stage {
            Stage::Awake if self.orders.doze.as_ref().is_some_and(|doze| doze.cancelled) => {
                Reason::StaysAwake(Refusal::Waking)
            }
            Stage::Awake if self.orders.doze.is_some() => Reason::FallingAsleep,
            Stage::Awake if self.orders.evidence.is_some() => Reason::GatheringEvidence,
            Stage::Awake => match self.doze_gates(Asker::Time).into_iter().next() {
                Some(gate) => Reason::StaysAwake(gate.refusal),
                None => Reason::Due,
            },
            Stage::Dozing { .. } | Stage::Deep { .. } => Reason::Asleep {
                throttled: self.way.as_ref().and_then(|way| way.throttled.clone()),
                not_deeper: matches!(self.stage, Stage::Dozing { .. })
                    .then(|| self.deep_gates(Asker::Time).into_iter().next().map(|gate| gate.refusal))
                    .flatten(),
            },
            Stage::Waking => Reason::Waking {
                cause: self.cause.clone().unwrap_or(Cause::Doubt),
                failed: self.wake_failed.clone(),
            },
        }
    }

    fn next(&self) -> Option<Next> {
        if let Some(at) = self.doze_at() {
            return Some(Next::Doze { at });
        }
        if let Some(at) = self.deep_at() {
            return Some(Next::Deep { at });
        }
        self.retry_at.map(|at| Next::WakeAgain { at })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StaysAwake(refusal) => write!(f, "{refusal}"),
            Self::Due => f.write_str("idle long enough, the next look begins the doze"),
            Self::GatheringEvidence => {
                f.write_str("about to doze: saving its world and looking at its links")
            }
            Self::FallingAsleep => f.write_str("falling asleep"),
            Self::Asleep { throttled: None, .. } => f.write_str("frozen"),
            Self::Asleep { throttled: Some(why), .. } => write!(f, "throttled, not frozen: {why}"),
            Self::Waking { cause, failed: None } => write!(f, "{cause}"),
            Self::Waking { cause, failed: Some(failed) } => {
                write!(f, "{cause}; waking failed ({failed}) and is tried again")
            }
        }
    }
}
