//! Nodes: reports, usage, commands.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::support::control::{Asks, Control};
use crate::support::{On, Start, on_both};

on_both!(
    a_report_tells_stages_and_usage,
    a_late_report_is_no_news,
    commands_reach_the_node_and_are_answered_once,
    a_sleep_needs_to_know_what_it_was_decided_on,
);

pub fn facts() -> Value {
    json!({
        "awake": 1, "dozing": 0, "deep": 0, "waking": 0, "kept": 0, "servers_bytes": 1 << 30, "headroom_bytes": 0,
        "total_bytes": 8u64 << 30, "handed_back": { "bytes": 0, "estimated": false }, "guard": "ok", "off": false
    })
}

pub fn report(at_ms: u64, servers: &[(&str, &str)]) -> Value {
    let servers: Vec<Value> = servers
        .iter()
        .map(|(name, stage)| {
            json!({
                "name": name, "profile": "minecraft-java", "mode": "observe", "stage": stage, "since_at_ms": at_ms,
                "flows": 0, "resident_bytes": 100u64 << 20, "size_bytes": 1u64 << 30, "last_player_at_ms": null,
                "kept": null, "note": null
            })
        })
        .collect();
    json!({ "at_ms": at_ms, "node": facts(), "servers": servers })
}

/// A region with a node and one server on it.
pub async fn with_node(control: &Control) -> (Asks, Asks) {
    let anna = control.operator();
    anna.add_tenant("acme").await;
    anna.post("/v1/nodes", json!({ "name": "fra-1", "total_bytes": 8u64 << 30 })).await;
    let body =
        json!({ "name": "acme/x", "profile": "minecraft-java", "node": "fra-1", "memory_bytes": 2u64 << 30 });
    anna.post("/v1/servers", body).await;
    let node = control.node("fra-1");
    (anna, node)
}

async fn a_report_tells_stages_and_usage(on: On) {
    let control = Start::new(on).run();
    let (anna, node) = with_node(&control).await;
    anna.add_server("acme/drifter").await;
    let path = "/v1/nodes/fra-1/reports";
    let answer = node
        .post(path, report(1000, &[("acme/x", "awake"), ("acme/drifter", "awake"), ("who/knows", "awake")]))
        .await;
    assert_eq!(answer["unknown"], json!(["who/knows"]));
    let x = anna.get("/v1/servers/acme%2Fx").await;
    assert_eq!((&x["report"]["stage"], &x["version"]), (&json!("awake"), &json!(1)));
    // Seen here, so it is here.
    assert_eq!(anna.get("/v1/servers/acme%2Fdrifter").await["node"], "fra-1");
    tokio::time::sleep(Duration::from_millis(30)).await;
    node.post(path, report(2000, &[("acme/x", "deep")])).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    node.post(path, report(3000, &[("acme/x", "awake")])).await;
    let usage = control.tenant("acme").get("/v1/usage").await;
    let used = usage["items"].as_array().unwrap().iter().find(|item| item["name"] == "acme/x").unwrap();
    assert!(used["awake_ms"].as_u64().unwrap() >= 30 && used["deep_ms"].as_u64().unwrap() >= 30, "{used}");
    assert_eq!(used["wakes"], 1);
    let sum = anna.get("/v1/usage?by=tenant").await;
    assert_eq!(sum["items"][0]["name"], "acme");
    assert_eq!(anna.get("/v1/servers?stage=awake&node=fra-1").await["items"].as_array().unwrap().len(), 2);
    let known = anna.get("/v1/nodes/fra-1").await;
    assert_eq!((&known["free_bytes"], &known["report"]["guard"]), (&json!(6u64 << 30), &json!("ok")));
    let other = control.node("fra-2");
    assert_eq!(other.problem("POST", path, Some(report(4000, &[]))).await.0, StatusCode::FORBIDDEN);
    assert_eq!(anna.problem("DELETE", "/v1/nodes/fra-1", None).await.0, StatusCode::CONFLICT);
}

async fn a_late_report_is_no_news(on: On) {
    let control = Start::new(on).run();
    let (anna, node) = with_node(&control).await;
    let path = "/v1/nodes/fra-1/reports";
    node.post(path, report(2000, &[("acme/x", "deep")])).await;
    node.post(path, report(1000, &[("acme/x", "awake")])).await;
    assert_eq!(anna.get("/v1/servers/acme%2Fx").await["report"]["stage"], "deep");
}

/// The next line of a node's stream.
pub async fn next(body: &mut hyper::body::Incoming, read: &mut Vec<u8>) -> Value {
    loop {
        while let Some(end) = read.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = read.drain(..=end).collect();
            if line.len() > 1 {
                return serde_json::from_slice(&line).unwrap();
            }
        }
        let frame =
            tokio::time::timeout(Duration::from_secs(20), body.frame()).await.unwrap().unwrap().unwrap();
        read.extend_from_slice(frame.data_ref().unwrap());
    }
}

async fn commands_reach_the_node_and_are_answered_once(on: On) {
    let start = Start::new(on);
    let control = start.run();
    let (anna, node) = with_node(&control).await;
    let acme = control.tenant("acme");
    let early = acme.post("/v1/servers/acme%2Fx/wake", json!({})).await;
    let (mut body, mut read) =
        (node.0.open("/v1/nodes/fra-1/commands", &[]).await.unwrap().into_body(), Vec::new());
    assert_eq!(next(&mut body, &mut read).await["id"], early["id"]);
    let keep = json!({ "for_ms": 60_000, "reason": "party", "owner": "anna" });
    let kept = acme.post("/v1/servers/acme%2Fx/keep", keep).await;
    let told = next(&mut body, &mut read).await;
    assert_eq!((&told["id"], &told["order"]["verb"]), (&kept["id"], &json!("keep")));
    assert!(told["expires_in_ms"].as_u64().unwrap() <= 60_000);
    // No answer: told again, also by another instance.
    let second = start.run();
    let other = second.node("fra-1");
    let (mut body2, mut read2) =
        (other.0.open("/v1/nodes/fra-1/commands", &[]).await.unwrap().into_body(), Vec::new());
    let mut seen = vec![
        next(&mut body2, &mut read2).await["id"].clone(),
        next(&mut body2, &mut read2).await["id"].clone(),
    ];
    seen.sort_by_key(Value::to_string);
    let mut expected = vec![early["id"].clone(), kept["id"].clone()];
    expected.sort_by_key(Value::to_string);
    assert_eq!(seen, expected);
    let path = |id: &Value| format!("/v1/nodes/fra-1/commands/{}/answer", id.as_str().unwrap());
    node.post(&path(&kept["id"]), json!({ "state": "done" })).await;
    // The first word counts.
    let again = other.post(&path(&kept["id"]), json!({ "state": "refused", "detail": "late" })).await;
    assert_eq!(again["state"], "done");
    let command = format!("/v1/commands/{}", kept["id"].as_str().unwrap());
    assert_eq!(acme.get(&command).await["state"], "done");
    assert_eq!(anna.get(&command).await["state"], "done");
    assert_eq!(control.tenant("core").problem("GET", &command, None).await.0, StatusCode::NOT_FOUND);
}

async fn a_sleep_needs_to_know_what_it_was_decided_on(on: On) {
    let control = Start::new(on).run();
    let (anna, node) = with_node(&control).await;
    let path = "/v1/servers/acme%2Fx/sleep";
    let (status, _) = anna.problem("POST", path, Some(json!({ "deep": true }))).await;
    assert_eq!(status, StatusCode::CONFLICT);
    node.post("/v1/nodes/fra-1/reports", report(1000, &[("acme/x", "awake")])).await;
    let command = anna.post(path, json!({ "deep": true })).await;
    assert_eq!(command["decided_on"], json!({ "stage": "awake", "since_at_ms": 1000, "version": 1 }));
    // Mode is followed where the node says that it follows.
    anna.patch("/v1/servers/acme%2Fx", json!({ "mode": "full" })).await;
    let mut following = report(2000, &[("acme/x", "awake")]);
    following["follows"] = json!(true);
    let answer = node.post("/v1/nodes/fra-1/reports", following).await;
    assert_eq!(answer["profiles_revision"].as_str().unwrap().len(), 32);
    let (mut body, mut read) =
        (node.0.open("/v1/nodes/fra-1/commands", &[]).await.unwrap().into_body(), Vec::new());
    let orders = [
        next(&mut body, &mut read).await["order"].clone(),
        next(&mut body, &mut read).await["order"].clone(),
    ];
    assert!(orders.contains(&json!({ "verb": "set_mode", "mode": "full" })), "{orders:?}");
    let profiles = node.get("/v1/nodes/fra-1/profiles").await;
    assert_eq!(profiles["revision"], answer["profiles_revision"]);
    assert_eq!(profiles["profiles"]["minecraft-java"]["doze_after"], "\"10m\"");
}
