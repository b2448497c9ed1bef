//! What must hold of a server's limits whichever layers they came from.

use std::time::Duration;

use super::error::ConfigError;
use super::layers::{LayerPatch, explain, merge};
use super::profile::Profile;
use crate::limits::{DozeBy, Floor, Limits};

/// The limits that follow from the layers, if they are sound. `subject` is the server (or profile) they
/// are of.
pub fn resolve(subject: &str, profile: &Profile, layers: &[LayerPatch]) -> Result<Limits, ConfigError> {
    let limits = merge(layers);
    let Some((key, rule)) = broken(&limits).or_else(|| forbidden(&limits, profile)) else {
        return Ok(limits);
    };
    let explained = explain(layers);
    let winner = explained.iter().find(|explained| explained.key == key).and_then(|found| found.winner());
    let (value, from) = winner.map(|winner| (winner.value.clone(), winner.from.clone())).unwrap_or_default();
    Err(ConfigError::Rule { subject: subject.to_owned(), key, value, from, rule })
}

/// A value no server can be run with.
fn broken(limits: &Limits) -> Option<(&'static str, String)> {
    const SECOND: Duration = Duration::from_secs(1);
    const LONGEST_THAW: Duration = Duration::from_millis(250);
    let rules = [
        ("doze_after", limits.doze_after >= SECOND, "must be at least 1s"),
        (
            "throttle_percent",
            (1..=100).contains(&limits.throttle_percent),
            "must be from 1 to 100 (percent of one core)",
        ),
        (
            "wakes_per_hour",
            limits.wakes_per_hour >= 1,
            "must be at least 1; to forbid sleep set floor = \"awake\"",
        ),
        ("patience", !limits.patience.is_zero(), "must be longer than 0s"),
        // Longer is a wake, not an answer (design §3, payload way).
        (
            "query_thaw",
            !limits.query_thaw.is_zero() && limits.query_thaw <= LONGEST_THAW,
            "must be longer than 0s and at most 250ms",
        ),
        ("query_every", limits.query_every >= limits.query_thaw, "must not be shorter than query_thaw"),
        (
            "busy_cpu_percent",
            limits.busy_cpu_percent != Some(0),
            "must be at least 1: every server would count as busy; to switch it off say \"never\"",
        ),
    ];
    rules.into_iter().find(|(_, holds, _)| !holds).map(|(key, _, rule)| (key, rule.to_owned()))
}

/// A value that this game does not bear.
fn forbidden(limits: &Limits, profile: &Profile) -> Option<(&'static str, String)> {
    if let Some(reason) = &profile.refuse
        && limits.floor != Floor::Awake
    {
        return Some(("floor", format!("must be \"awake\" with profile {}: {reason}", profile.name)));
    }
    if let Some(reason) = &profile.refuse_freeze
        && limits.doze_by == DozeBy::Freeze
    {
        return Some(("doze_by", format!("must be \"throttle\" with profile {}: {reason}", profile.name)));
    }
    None
}
