use std::io::Write as _;
use std::process::{Command, Stdio};

use super::seen::{Erasures, Waiting};
use super::*;

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../dist/prometheus/control.rules.yml");

/// Everything has happened once.
fn busy() -> Metrics {
    let metrics = Metrics::new(Some(Arc::new(AtomicU64::new(4))));
    metrics.request(&Method::GET, None, 404);
    metrics.request(&Method::from_bytes(b"BREW").unwrap(), None, 405);
    metrics.command_delivered();
    metrics.commands_expired(2);
    metrics.command_answered(CommandState::Refused);
    metrics.index_refreshed(3);
    metrics.index_refresh_failed();
    metrics.read().database = Some(Seen {
        at_ms: 10_000,
        unsequenced: Waiting { events: 2, oldest_ms: 1500 },
        unsent: Some(Waiting { events: 7, oldest_ms: 90_000 }),
        erasures: Erasures { open: 3, overdue: 1, nearest_deadline_at_ms: Some(4_000) },
        commands: 5,
    });
    metrics
}

#[test]
fn everything_that_happened_is_shown() {
    let text = busy().text(Format::Prometheus);
    for line in [
        "dormouse_control_requests_total{method=\"GET\",route=\"none\",status=\"404\"} 1",
        "dormouse_control_requests_total{method=\"other\",route=\"none\",status=\"405\"} 1",
        "dormouse_control_commands_delivered_total 1",
        "dormouse_control_commands_expired_total 2",
        "dormouse_control_commands_answered_total{state=\"refused\"} 1",
        "dormouse_control_index_healed_total 3",
        "dormouse_control_index_refresh_failures_total 1",
        "dormouse_control_index_writes_dropped_total 4",
        "dormouse_control_database_up 1.0",
        "dormouse_control_outbox_waiting{sink=\"redis\"} 7.0",
        "dormouse_control_outbox_oldest_seconds{sink=\"readers\"} 1.5",
        "dormouse_control_erasures{state=\"overdue\"} 1.0",
        "dormouse_control_erasure_nearest_deadline_seconds -6.0",
        "dormouse_control_commands_waiting 5.0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_database_that_is_away_has_no_old_figures() {
    let metrics = busy();
    metrics.read().database = None;
    let text = metrics.text(Format::Prometheus);
    assert!(text.contains("dormouse_control_database_up 0.0"), "{text}");
    assert!(!text.contains("outbox") && !text.contains("erasure"), "{text}");
}

/// What promtool says; `None` where it isn't installed.
fn promtool(arguments: &[&str], input: &str) -> Option<(bool, String)> {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: promtool is not installed (Debian: prometheus)");
            return None;
        }
        Err(error) => panic!("promtool: {error}"),
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Some((output.status.success(), said.into_owned()))
}

#[test]
fn the_real_promtool_finds_nothing_to_say() {
    for (what, metrics) in [("busy", busy()), ("empty", Metrics::new(None))] {
        let text = metrics.text(Format::Prometheus);
        let Some((fine, said)) = promtool(&["check", "metrics"], &text) else { return };
        assert!(fine && said.trim().is_empty(), "{what}: {said}\n{text}");
    }
}

#[test]
fn the_alerts_are_well_formed_and_about_metrics_that_exist() {
    let rules = std::fs::read_to_string(RULES).unwrap();
    let text = busy().text(Format::Prometheus);
    let mut named = 0;
    for expression in rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")) {
        let word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let metric = expression.split(|letter| !word(letter)).find(|part| part.starts_with("dormouse_"));
        let metric = metric.expect(expression);
        assert!(
            text.lines().any(|line| line.starts_with(metric) && !line[metric.len()..].starts_with(word)),
            "no metric is called {metric}"
        );
        named += 1;
    }
    assert!(named >= 2, "{rules}");
    let Some((fine, said)) = promtool(&["check", "rules", RULES], "") else { return };
    assert!(fine, "{said}");
}
