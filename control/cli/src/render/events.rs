//! `dormouse events`: one line each, in columns that don't wait for the next line.

use dormouse_api::event::{Class, Event};

use super::phases;
use crate::units::Clock;

pub fn head() -> String {
    line("TIME", "TYPE", "SERVER", "FROM", "CLASS", "DETAIL")
}

pub fn event(event: &Event, clock: &Clock) -> String {
    let detail = event.detail.clone().into_iter().chain(event.phases.as_ref().map(phases));
    let detail: Vec<_> = detail.filter(|part| !part.is_empty()).collect();
    line(
        &clock.date_time_ms(event.at_ms),
        event.kind.name(),
        event.server.as_deref().unwrap_or("(node)"),
        event.from.as_deref().unwrap_or("-"),
        event.class.map_or("-", Class::name),
        &detail.join("; ").replace('\n', " "),
    )
}

fn line(time: &str, kind: &str, server: &str, from: &str, class: &str, detail: &str) -> String {
    let line = format!("{time:<23}  {kind:<9}  {server:<20}  {from:<21}  {class:<9}  {detail}");
    format!("{}\n", line.trim_end())
}

#[cfg(test)]
mod tests {
    use dormouse_api::command::Phases;
    use dormouse_api::event::EventKind;
    use jiff::tz::TimeZone;

    use super::*;

    #[test]
    fn a_wake_and_a_crash() {
        let clock = Clock { now_ms: 0, zone: TimeZone::UTC };
        let wake = Event {
            at_ms: 1_795_000_000_402,
            kind: EventKind::Wake,
            server: Some("acme/creative".into()),
            profile: Some("minecraft-java".into()),
            from: Some("203.0.113.7:53122".into()),
            class: Some(Class::Player),
            phases: Some(Phases { decided_ns: Some(100_000), ..Phases::default() }),
            detail: Some("Minecraft login".into()),
        };
        let open = Event {
            kind: EventKind::FailOpen,
            server: None,
            from: None,
            class: None,
            phases: None,
            detail: None,
            ..wake.clone()
        };
        assert_eq!(
            head() + &event(&wake, &clock) + &event(&open, &clock),
            "\
TIME                     TYPE       SERVER                FROM                   CLASS      DETAIL
2026-11-18 11:06:40.402  wake       acme/creative         203.0.113.7:53122      player     Minecraft login; decided +0.1 ms
2026-11-18 11:06:40.402  fail_open  (node)                -                      -
"
        );
    }
}
