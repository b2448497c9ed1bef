//! A server that did not stand a wake may sleep less deeply from then on.

use crate::limits::DozeBy;

/// Outlives daemon and reboot: to be stored beside the server, given back in [`super::Setup`], lifted by
/// [`super::Event::Pardon`] only.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Demotion {
    /// How far it may still go.
    pub ceiling: Ceiling,
    /// What went wrong.
    pub reason: String,
    /// What the operator can set to be rid of it.
    pub cure: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ceiling {
    Throttle,
    Awake,
}

impl Demotion {
    /// One step down from how it slept; never back up from where it already was.
    pub(super) fn after(
        by: DozeBy,
        earlier: Option<&Self>,
        reason: String,
        watchdog_cure: Option<&str>,
    ) -> Self {
        let ceiling = match (by, earlier.map(|demotion| demotion.ceiling)) {
            (DozeBy::Freeze, None | Some(Ceiling::Throttle)) => Ceiling::Throttle,
            (DozeBy::Throttle, _) | (_, Some(Ceiling::Awake)) => Ceiling::Awake,
        };
        let cure = match (by, watchdog_cure) {
            (DozeBy::Freeze, Some(line)) => {
                format!(
                    "set {line} in the game (and check what is asserted of it), then enable the server again"
                )
            }
            (DozeBy::Freeze, None) => {
                "set doze_by = \"throttle\", or find what ends it after a pause, then enable it again".into()
            }
            (DozeBy::Throttle, _) => {
                "raise throttle_percent, or set floor = \"awake\", then enable it again".into()
            }
        };
        Self { ceiling, reason, cure }
    }

    /// Whether a doze of this kind is still allowed.
    pub(super) fn allows(&self, by: DozeBy) -> bool {
        self.ceiling == Ceiling::Throttle && by == DozeBy::Throttle
    }
}
