//! SIGKILL between every two statements: nothing committed is lost, nothing uncommitted shows.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bus;
use crate::support::control::Control;
use crate::support::redis::Redis;
use crate::support::{On, Start, on_both, until};

on_both!(a_write_is_whole_or_never_was, what_was_committed_is_told, the_index_heals);

/// What is asked, and where it dies on the way: before the commit it never was, after it it is.
const WRITES: &[(&str, &str, &[&str])] = &[
    ("POST", "/v1/servers", &["server-create-counted", "server-create-written"]),
    ("PATCH", "/v1/servers/acme%2Fx", &["server-change-written"]),
    ("DELETE", "/v1/servers/acme%2Fx", &["server-delete-marked", "server-delete-cleaned"]),
    ("PATCH", "/v1/servers/acme%2Fx/limits", &["threshold-versioned"]),
];

fn body(method: &str, path: &str) -> Option<Value> {
    match (method, path) {
        ("POST", _) => Some(json!({ "name": "acme/new", "profile": "luanti" })),
        ("PATCH", path) if path.ends_with("limits") => Some(json!({ "key": "floor", "value": "deep" })),
        ("PATCH", _) => Some(json!({ "mode": "full" })),
        _ => None,
    }
}

/// Everything that a write changes.
async fn all_of(control: &Control) -> Vec<Value> {
    let anna = control.operator();
    let mut state = vec![anna.get("/v1/servers").await];
    let limits = anna.ask("GET", "/v1/servers/acme%2Fx/limits", &[], None).await;
    state.push(serde_json::from_slice(&limits.body).unwrap());
    let events = bus::all(control).await;
    state.push(json!(events.iter().map(|event| event["type"].clone()).collect::<Vec<_>>()));
    state
}

async fn die(start: &Start, place: &str, method: &str, path: &str) {
    let mut control = start.clone().dies_at(place).run();
    let anna = control.operator();
    let key = [("idempotency-key", place)];
    let asked = anna.0.ask(method.parse().unwrap(), path, &key, body(method, path).as_ref()).await;
    assert!(asked.is_err(), "{place}: {asked:?}");
    assert_eq!(control.wait().signal(), Some(9), "{place}");
}

async fn a_write_is_whole_or_never_was(on: On) {
    for (method, path, places) in WRITES {
        let start = Start::new(on);
        let control = start.run();
        control.operator().add_tenant("acme").await;
        control.operator().add_server("acme/x").await;
        bus::until_there(&control, "dormouse.server.created", 1).await;
        let before = all_of(&control).await;
        control.kill();
        for place in places.iter().copied().chain(["before-idempotency", "before-commit"]) {
            die(&start, place, method, path).await;
            let control = start.run();
            assert_eq!(all_of(&control).await, before, "{method} {path} at {place}");
            control.kill();
        }
        die(&start, "after-commit", method, path).await;
        let control = start.run();
        let key = [("idempotency-key", "after-commit")];
        let reply = control.operator().ask(method, path, &key, body(method, path).as_ref()).await;
        assert!(
            reply.status.is_success() && reply.headers.contains_key("idempotency-replayed"),
            "{method} {path}"
        );
        let count = before[2].as_array().unwrap().len() + 1;
        let events = until(Duration::from_secs(20), "the event", async || {
            Some(bus::all(&control).await).filter(|events| events.len() >= count)
        })
        .await;
        assert_eq!(events.len(), count, "{method} {path}");
        assert_ne!(all_of(&control).await, before);
    }
}

async fn what_was_committed_is_told(on: On) {
    let redis = Redis::start().await;
    let start = Start::new(on).with(&["--index", &redis.url()]);
    let control = start.run();
    control.operator().add_tenant("acme").await;
    control.kill();
    let places =
        ["sequence-given", "sequence-before-commit", "sequence-after-commit", "relay-sent", "relay-marked"];
    for (number, place) in places.into_iter().enumerate() {
        let server = json!({ "name": format!("acme/s{number}"), "profile": "luanti" });
        let status = match start.clone().dies_at(place).try_run() {
            Ok(mut control) => {
                control.operator().try_ask("POST", "/v1/servers", Some(&server)).await;
                control.wait()
            }
            // Of an event that was there before.
            Err(status) => status,
        };
        assert_eq!(status.signal(), Some(9), "{place}");
        // It may not have come to this one.
        let control = start.run();
        control.operator().try_ask("POST", "/v1/servers", Some(&server)).await;
        control.kill();
    }
    let control = start.run();
    let events = bus::until_there(&control, "dormouse.server.created", places.len()).await;
    assert_eq!(events.len(), places.len());
    let positions: Vec<u64> =
        bus::all(&control).await.iter().map(|event| event["position"].as_u64().unwrap()).collect();
    assert_eq!(positions, (1..=positions.len() as u64).collect::<Vec<_>>());
    let mut connection = redis.connect().await;
    until(Duration::from_secs(20), "the stream", async || {
        let sent: usize =
            redis::cmd("XLEN").arg("dormouse:fra:events").query_async(&mut connection).await.unwrap();
        (sent == positions.len()).then_some(())
    })
    .await;
}

async fn the_index_heals(on: On) {
    let redis = Redis::start().await;
    let start = Start::new(on).with(&["--index", &redis.url()]);
    let control = start.run();
    control.operator().add_tenant("acme").await;
    control.operator().add_server("acme/x").await;
    control.kill();
    for place in ["after-commit", "index-before-write", "index-after-write"] {
        let mut control = start.clone().dies_at(place).run();
        let mode = if place == "index-before-write" { "doze" } else { "full" };
        control.operator().try_ask("PATCH", "/v1/servers/acme%2Fx", Some(&json!({ "mode": mode }))).await;
        assert_eq!(control.wait().signal(), Some(9), "{place}");
        let control = start.run();
        let anna = control.operator();
        // The next change of the server heals it (the refresh at the start does too).
        anna.patch("/v1/servers/acme%2Fx", json!({ "mode": "observe" })).await;
        until(Duration::from_secs(20), place, async || {
            anna.get("/v1/index/check").await["differences"].as_array().unwrap().is_empty().then_some(())
        })
        .await;
        control.kill();
    }
}
