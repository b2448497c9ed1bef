//! What Prometheus is told, by the real program and the real promtool.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use dormouse_api::remote::Remote;
use hyper::{Method, StatusCode};
use serde_json::json;

use crate::support::control::Asks;
use crate::support::redis::Redis;
use crate::support::{On, Start, free_port, on_both, until};

on_both!(what_happens_is_told_to_prometheus);

async fn what_happens_is_told_to_prometheus(on: On) {
    let redis = Redis::start().await;
    let metrics = format!("127.0.0.1:{}", free_port());
    let start = Start::new(on).with(&["--metrics-listen", &metrics, "--index", &redis.url()]);
    let control = start.with(&["--erasure-service", "billing"]).run();
    let anna = control.operator();
    anna.add_tenant("acme").await;
    anna.add_server("acme/x").await;
    anna.post("/v1/erasures", json!({ "subject": "player-7" })).await;
    anna.problem("GET", "/v1/servers/acme%2Fnone", None).await;
    let scrapes = Asks(Remote::new(&format!("http://{metrics}"), None).unwrap());
    let scrape = async || {
        let reply = scrapes.ask("GET", "/metrics", &[], None).await;
        assert_eq!(reply.status, StatusCode::OK);
        String::from_utf8(reply.body.to_vec()).unwrap()
    };
    let expected = [
        "dormouse_control_requests_total{method=\"GET\",route=\"/v1/servers/{name}\",status=\"404\"} 1",
        "dormouse_control_requests_total{method=\"POST\",route=\"/v1/servers\",status=\"201\"} 1",
        "dormouse_control_database_up 1.0",
        "dormouse_control_outbox_oldest_seconds{sink=\"redis\"} 0.0",
        "dormouse_control_erasures{state=\"open\"} 1.0",
        "dormouse_control_erasures{state=\"overdue\"} 0.0",
        "dormouse_control_index_writes_dropped_total 0",
    ];
    let waits_for_nobody = |text: &str| {
        let mut waiting = text.lines().filter(|line| line.starts_with("dormouse_control_outbox_waiting{"));
        waiting.clone().count() == 2 && waiting.all(|line| line.ends_with(" 0.0"))
    };
    let text = until(Duration::from_secs(20), "the outbox to be empty", async || {
        Some(scrape().await).filter(|text| waits_for_nobody(text))
    })
    .await;
    for line in expected {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let line = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse::<f64>().unwrap()
    };
    let left = line("dormouse_control_erasure_nearest_deadline_seconds");
    assert!((22.9 * 86400.0..=23.0 * 86400.0).contains(&left), "{left}");
    assert!(line("dormouse_control_index_refresh_timestamp_seconds") > 1.7e9);
    // Nothing else is served there.
    assert_eq!(scrapes.0.ask(Method::GET, "/v1/servers", &[], None::<&()>).await.unwrap().status, 404);
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = promtool.expect("promtool: is it installed? scripts/setup build");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}\n{text}");
}
