//! What a verb did to a server: one line.

use dormouse_api::command::WakeResult;
use dormouse_api::status::{ServerStatus, Stage};

use super::{kept, mode, phases, stage};
use crate::units::Clock;

pub fn woken(result: &WakeResult) -> String {
    if result.from_stage == Stage::Awake {
        return format!("{}: was awake\n", result.server);
    }
    let line =
        format!("{}: awake (from {})  {}", result.server, stage(result.from_stage), phases(&result.phases));
    format!("{}\n", line.trim_end())
}

/// The stage and the mode that it is in now, and whether it is kept.
pub fn changed(server: &ServerStatus, clock: &Clock) -> String {
    let kept = server.kept.as_ref().map(|one| format!(", {}", kept(one, clock))).unwrap_or_default();
    format!("{}: {}, mode {}{kept}\n", server.name, stage(server.stage), mode(server.mode))
}

#[cfg(test)]
mod tests {
    use dormouse_api::command::Phases;

    use super::*;

    #[test]
    fn a_wake_shows_what_was_measured() {
        let phases =
            Phases { thawed_ns: Some(420_000), first_answer_ns: Some(31_200_000), ..Phases::default() };
        let mut result = WakeResult { server: "a/b".into(), from_stage: Stage::Dozing, phases };
        assert_eq!(woken(&result), "a/b: awake (from dozing)  thawed +0.4 ms  first answer +31\n");
        result.from_stage = Stage::Awake;
        assert_eq!(woken(&result), "a/b: was awake\n");
    }
}
