//! Frozen or throttled? What is known about saving, watchdog and links decides; unknown means throttle.

use std::time::Duration;

use super::Demotion;
use crate::limits::DozeBy;

/// What was found out just before a doze.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    pub save: Save,
    pub watchdog: Watchdog,
    pub outbound: Outbound,
    /// The line that turns this game's watchdog off, for the operator; `None` = the game has none known.
    pub watchdog_cure: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Save {
    /// The save hook succeeded, or a file matching `save_files` was closed, at this time.
    Saved {
        at: Duration,
    },
    /// Built into the profile, or asserted by the operator.
    NotNeeded,
    /// There is a hook, and it was not run since dormouse only observes.
    NotTried,
    Failed {
        reason: String,
    },
    /// No hook, no file.
    NoEvidence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watchdog {
    /// By the game's own settings, or it has none.
    Off,
    /// The operator says so.
    AssertedOff,
    On,
    Unknown,
}

/// Established connections that the server itself opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outbound {
    None,
    /// All on the profile's list.
    Harmless,
    Found {
        to: String,
    },
}

/// Why a server is throttled rather than frozen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[serde(tag = "why", rename_all = "kebab-case")]
pub enum Throttled {
    #[error("its limits say doze_by = \"throttle\"")]
    Limits,
    #[error("a freeze went wrong before: {reason}")]
    Demoted { reason: String },
    #[error("its watchdog is on and would kill it after a freeze{}", to_allow(.cure.as_deref()))]
    WatchdogOn { cure: Option<String> },
    #[error("its watchdog's setting could not be read{}", to_allow(.cure.as_deref()))]
    WatchdogUnknown { cure: Option<String> },
    #[error(
        "nothing shows that its world is saved; set a before_doze hook, save_files, or assert save = \"not-needed\""
    )]
    NoSaveEvidence,
    #[error("saving failed: {reason}")]
    SaveFailed { reason: String },
    #[error("its world was last saved before the last player was here")]
    SaveTooOld,
    #[error("it holds a connection to {to}, which its profile does not list as harmless")]
    OutboundLink { to: String },
}

fn to_allow(line: Option<&str>) -> String {
    line.map_or_else(String::new, |line| format!("; to allow the freeze, set {line}"))
}

impl Throttled {
    /// Machine-readable, stable.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Limits => "doze-by-throttle",
            Self::Demoted { .. } => "demoted",
            Self::WatchdogOn { .. } => "watchdog-on",
            Self::WatchdogUnknown { .. } => "watchdog-unknown",
            Self::NoSaveEvidence => "no-save-evidence",
            Self::SaveFailed { .. } => "save-failed",
            Self::SaveTooOld => "save-too-old",
            Self::OutboundLink { .. } => "outbound-link",
        }
    }
}

/// How a doze is entered.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Way {
    pub by: DozeBy,
    /// Why not frozen; present with `Throttle`.
    pub throttled: Option<Throttled>,
}

/// What forbids a freeze whatever the evidence says.
pub(super) fn throttle_without_evidence(doze_by: DozeBy, demotion: Option<&Demotion>) -> Option<Throttled> {
    match (doze_by, demotion) {
        (DozeBy::Throttle, _) => Some(Throttled::Limits),
        (DozeBy::Freeze, Some(demotion)) => Some(Throttled::Demoted { reason: demotion.reason.clone() }),
        (DozeBy::Freeze, None) => None,
    }
}

impl Evidence {
    /// What in it forbids a freeze. `on_paper`, a hook that was not run is taken to succeed.
    pub(super) fn throttle(&self, last_player: Option<Duration>, on_paper: bool) -> Option<Throttled> {
        let cure = || self.watchdog_cure.clone();
        match self.watchdog {
            Watchdog::On => return Some(Throttled::WatchdogOn { cure: cure() }),
            Watchdog::Unknown => return Some(Throttled::WatchdogUnknown { cure: cure() }),
            Watchdog::Off | Watchdog::AssertedOff => {}
        }
        match &self.save {
            Save::Saved { at } if last_player.is_some_and(|player| player > *at) => {
                return Some(Throttled::SaveTooOld);
            }
            Save::NotTried if !on_paper => return Some(Throttled::NoSaveEvidence),
            Save::NoEvidence => return Some(Throttled::NoSaveEvidence),
            Save::Failed { reason } => return Some(Throttled::SaveFailed { reason: reason.clone() }),
            Save::Saved { .. } | Save::NotNeeded | Save::NotTried => {}
        }
        match &self.outbound {
            Outbound::Found { to } => Some(Throttled::OutboundLink { to: to.clone() }),
            Outbound::None | Outbound::Harmless => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Evidence = Evidence {
        save: Save::NotNeeded,
        watchdog: Watchdog::Off,
        outbound: Outbound::None,
        watchdog_cure: None,
    };

    fn code(evidence: &Evidence, on_paper: bool) -> Option<&'static str> {
        evidence.throttle(Some(Duration::from_secs(100)), on_paper).map(|why| why.code())
    }

    #[test]
    fn freeze_needs_every_piece() {
        let saved = |at| Save::Saved { at: Duration::from_secs(at) };
        assert_eq!(code(&GOOD, false), None);
        assert_eq!(code(&Evidence { watchdog: Watchdog::AssertedOff, ..GOOD }, false), None);
        assert_eq!(code(&Evidence { outbound: Outbound::Harmless, ..GOOD }, false), None);
        assert_eq!(code(&Evidence { save: saved(100), ..GOOD }, false), None);
        assert_eq!(code(&Evidence { save: saved(99), ..GOOD }, false), Some("save-too-old"));
        assert_eq!(code(&Evidence { save: Save::NoEvidence, ..GOOD }, true), Some("no-save-evidence"));
        let failed = Save::Failed { reason: "rcon timed out".into() };
        assert_eq!(code(&Evidence { save: failed, ..GOOD }, false), Some("save-failed"));
        assert_eq!(code(&Evidence { save: Save::NotTried, ..GOOD }, true), None);
        assert_eq!(code(&Evidence { save: Save::NotTried, ..GOOD }, false), Some("no-save-evidence"));
        assert_eq!(code(&Evidence { watchdog: Watchdog::On, ..GOOD }, false), Some("watchdog-on"));
        assert_eq!(code(&Evidence { watchdog: Watchdog::Unknown, ..GOOD }, false), Some("watchdog-unknown"));
        let link = Outbound::Found { to: "10.0.0.9:3306".into() };
        assert_eq!(code(&Evidence { outbound: link, ..GOOD }, false), Some("outbound-link"));
    }

    #[test]
    fn the_sentence_carries_the_cure() {
        let why = Evidence { watchdog: Watchdog::On, watchdog_cure: Some("max-tick-time=-1".into()), ..GOOD }
            .throttle(None, false)
            .unwrap();
        assert_eq!(
            why.to_string(),
            "its watchdog is on and would kill it after a freeze; to allow the freeze, set max-tick-time=-1"
        );
    }
}
