//! Answers as text. Pure: the same answer and clock give the same text.

pub mod events;
pub mod preflight;
pub mod profile;
pub mod savings;
pub mod server;
pub mod status;
pub mod table;
pub mod why;

use dormouse_api::command::Phases;
use dormouse_api::status::{Kept, Mode, Stage};

use crate::units::{self, Clock};

pub fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Awake => "awake",
        Stage::Dozing => "dozing",
        Stage::Deep => "deep",
        Stage::Waking => "waking",
    }
}

pub fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Observe => "observe",
        Mode::Doze => "doze",
        Mode::Full => "full",
    }
}

/// `kept by anna until 18:00, "LAN party"`
fn kept(kept: &Kept, clock: &Clock) -> String {
    format!("kept by {} until {}, \"{}\"", kept.owner, clock.minute(kept.until_at_ms), kept.reason)
}

/// `decided +0.1 ms  thawed +0.4  first answer +31`; empty when nothing was measured.
fn phases(phases: &Phases) -> String {
    let phases = [
        ("decided", phases.decided_ns),
        ("thawed", phases.thawed_ns),
        ("first answer", phases.first_answer_ns),
        ("working set back", phases.working_set_ns),
    ];
    let measured = phases.into_iter().filter_map(|(name, ns)| Some((name, ns?)));
    let shown = measured.enumerate().map(|(index, (name, ns))| {
        let unit = if index == 0 { " ms" } else { "" };
        format!("{name} +{}{unit}", units::ms(ns))
    });
    shown.collect::<Vec<_>>().join("  ")
}
