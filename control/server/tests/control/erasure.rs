//! Erasure: asked once, answered by all, again after a restore.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::support::control::Asks;
use crate::support::redis::Redis;
use crate::support::{On, Start, on_both, until};

on_both!(
    an_erasure_is_done_when_every_service_said_so,
    an_erasure_goes_through_the_stream_too,
    a_node_erases_when_it_is_there_and_is_not_waited_for_when_it_is_gone,
    after_a_restore_what_was_erased_is_erased_again,
    after_a_restore_the_stream_goes_on,
);

async fn until_state(asks: &Asks, id: &str, service: &str, state: &str) -> Value {
    until(Duration::from_secs(20), state, async || {
        let erasure = asks.get(&format!("/v1/erasures/{id}")).await;
        let said = erasure["services"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["service"] == service && one["state"] == state);
        said.then_some(erasure)
    })
    .await
}

async fn an_erasure_is_done_when_every_service_said_so(on: On) {
    let control = Start::new(on).with(&["--erasure-service", "billing"]).run();
    let anna = control.operator();
    anna.add_tenant("acme").await;
    anna.add_server("acme/x").await;
    let person = control.who(&["--role", "tenant", "--tenant", "acme", "--subject", "person-17"]);
    person.patch("/v1/servers/acme%2Fx/limits", json!({ "key": "floor", "value": "deep" })).await;
    let history = "/v1/servers/acme%2Fx/limits/history";
    assert_eq!(anna.get(history).await["items"][0]["by"], "person-17");

    let acme = control.tenant("acme");
    let asked = acme.post("/v1/erasures", json!({ "subject": "person-17" })).await;
    let id = asked["id"].as_str().unwrap();
    assert_eq!((&asked["tenant"], &asked["state"]), (&json!("acme"), &json!("open")));
    let erasure = until_state(&acme, id, "control", "erased").await;
    assert_eq!(erasure["state"], "open");
    assert_eq!(anna.get(history).await["items"][0]["by"], "erased");
    let billing = control.service("billing");
    let path = format!("/v1/erasures/{id}/answers");
    let no_reason = json!({ "service": "billing", "state": "skipped" });
    assert_eq!(billing.problem("POST", &path, Some(no_reason)).await.1["field"], "reason");
    let skipped = json!({ "service": "billing", "state": "skipped", "reason": "invoices, 10 years" });
    assert_eq!(billing.post(&path, skipped.clone()).await["state"], "completed");
    assert_eq!(billing.post(&path, skipped).await["state"], "completed");
    crate::bus::until_there(&control, "dormouse.erasure.completed", 1).await;

    assert_eq!(
        acme.problem("POST", &path, Some(json!({ "service": "control", "state": "erased" }))).await.0,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        control.tenant("core").problem("GET", &format!("/v1/erasures/{id}"), None).await.0,
        StatusCode::NOT_FOUND
    );
    let name = json!({ "subject": "anna@example.org" });
    assert_eq!(acme.problem("POST", "/v1/erasures", Some(name)).await.1["field"], "subject");
    // A backup was restored: all are asked again.
    assert_eq!(anna.post("/v1/erasures/replay", json!({ "since_at_ms": 0 })).await["requests"], 1);
    let again = until_state(&acme, id, "control", "erased").await;
    assert_eq!(again["state"], "open");
    crate::bus::until_there(&control, "dormouse.erasure.requested", 2).await;
}

async fn an_erasure_goes_through_the_stream_too(on: On) {
    let redis = Redis::start().await;
    let control = Start::new(on).with(&["--index", &redis.url()]).run();
    let anna = control.operator();
    let asked = anna.post("/v1/erasures", json!({ "subject": "person-1" })).await;
    let erasure = until_state(&anna, asked["id"].as_str().unwrap(), "control", "erased").await;
    assert_eq!((&erasure["state"], &erasure["tenant"]), (&json!("completed"), &Value::Null));
}

fn state<'a>(erasure: &'a Value, service: &str) -> &'a Value {
    let mut services = erasure["services"].as_array().unwrap().iter();
    services.find(|one| one["service"] == service).unwrap_or(&Value::Null)
}

async fn a_node_erases_when_it_is_there_and_is_not_waited_for_when_it_is_gone(on: On) {
    let start = Start::new(on);
    let control = start.run();
    let (anna, node) = crate::nodes::with_node(&control).await;
    for away in ["fra-2", "fra-3"] {
        anna.post("/v1/nodes", json!({ "name": away, "total_bytes": 1 })).await;
    }
    let (mut body, mut read) =
        (node.0.open("/v1/nodes/fra-1/commands", &[]).await.unwrap().into_body(), Vec::new());
    let acme = control.tenant("acme");
    let asked = acme.post("/v1/erasures", json!({ "subject": "person-1" })).await;
    let id = asked["id"].as_str().unwrap();
    assert_eq!(state(&asked, "node:fra-1")["state"], "waiting");
    let told = crate::nodes::next(&mut body, &mut read).await;
    assert_eq!(told, json!({ "request": id, "subject": "person-1", "tenant": "acme" }));
    // Not answered: told again, also by another instance and after a restart.
    drop(body);
    let second = start.run();
    let other = second.node("fra-1");
    let (mut body, mut read) =
        (other.0.open("/v1/nodes/fra-1/commands", &[]).await.unwrap().into_body(), Vec::new());
    assert_eq!(crate::nodes::next(&mut body, &mut read).await, told);
    let answer = |name: &str| format!("/v1/nodes/{name}/erasures/{id}/answer");
    for _ in 0..2 {
        other.post(&answer("fra-1"), json!({ "count": 3 })).await;
    }
    let erasure = until_state(&anna, id, "control", "erased").await;
    let one = state(&erasure, "node:fra-1");
    assert_eq!((&one["state"], &one["count"]), (&json!("erased"), &json!(3)));
    assert_eq!(erasure["state"], "open", "two nodes are away");

    // Each speaks for itself; only an operator speaks for one that is lost, and must say why.
    assert_eq!(
        node.problem("POST", &answer("fra-2"), Some(json!({ "count": 0 }))).await.0,
        StatusCode::FORBIDDEN
    );
    let path = format!("/v1/erasures/{id}/answers");
    let lost = json!({ "service": "node:fra-2", "state": "skipped", "reason": "its disks were destroyed" });
    assert_eq!(
        control.service("billing").problem("POST", &path, Some(lost.clone())).await.0,
        StatusCode::FORBIDDEN
    );
    assert_eq!(anna.post(&path, lost).await["state"], "open");
    assert_eq!(anna.ask("DELETE", "/v1/nodes/fra-3", &[], None).await.status, StatusCode::NO_CONTENT);
    let erasure = anna.get(&format!("/v1/erasures/{id}")).await;
    let gone = state(&erasure, "node:fra-3");
    assert_eq!((&gone["state"], &erasure["state"]), (&json!("skipped"), &json!("completed")));
    assert!(gone["reason"].as_str().unwrap().contains("removed"), "{gone}");

    // Asked again: those that are there now, and not the removed one.
    anna.post("/v1/nodes", json!({ "name": "fra-4", "total_bytes": 1 })).await;
    anna.post("/v1/erasures/replay", json!({ "since_at_ms": 0 })).await;
    assert_eq!(crate::nodes::next(&mut body, &mut read).await, told);
    let erasure = anna.get(&format!("/v1/erasures/{id}")).await;
    let states =
        ["fra-1", "fra-3", "fra-4"].map(|name| state(&erasure, &format!("node:{name}"))["state"].clone());
    assert_eq!(states, [json!("waiting"), json!("skipped"), json!("waiting")]);
}

async fn by(asks: &Asks) -> Value {
    asks.get("/v1/servers/acme%2Fx/limits/history").await["items"][0]["by"].clone()
}

/// A backup is made, then a person is erased; how it starts on the backup, with the request's id.
async fn restored(start: &Start) -> (Start, String) {
    let control = start.run();
    let anna = control.operator();
    anna.add_tenant("acme").await;
    anna.add_server("acme/x").await;
    let person = control.who(&["--role", "tenant", "--tenant", "acme", "--subject", "person-17"]);
    person.patch("/v1/servers/acme%2Fx/limits", json!({ "key": "floor", "value": "deep" })).await;
    crate::bus::until_there(&control, "dormouse.server.limits", 1).await;
    control.kill();
    let backup = start.backup();
    let control = start.run();
    let anna = control.operator();
    let asked = anna.post("/v1/erasures", json!({ "subject": "person-17" })).await;
    let id = asked["id"].as_str().unwrap().to_owned();
    until_state(&anna, &id, "control", "erased").await;
    assert_eq!(by(&anna).await, "erased");
    anna.patch("/v1/servers/acme%2Fx", json!({ "mode": "full" })).await;
    crate::bus::until_there(&control, "dormouse.server.changed", 1).await;
    control.kill();
    (backup, id)
}

async fn after_a_restore_what_was_erased_is_erased_again(on: On) {
    let (backup, id) = restored(&Start::new(on)).await;
    let control = backup.run();
    let anna = control.operator();
    let erasure = until_state(&anna, &id, "control", "erased").await;
    assert_eq!((&erasure["state"], &erasure["subject"]), (&json!("completed"), &json!("person-17")));
    assert_eq!(by(&anna).await, "erased");
    // Whoever had read everything before the restore reads the request again.
    let last = crate::bus::until_there(&control, "dormouse.erasure.requested", 1).await;
    assert!(last[0]["position"].as_u64().unwrap() > 1 << 32, "{last:?}");
    crate::bus::until_there(&control, "dormouse.erasure.completed", 1).await;
    control.kill();
    // It is known now: the next start changes nothing.
    let control = backup.run();
    assert_eq!(crate::bus::all(&control).await.len(), 3 + 2);
    control.kill();
    // Without a request since the backup an operator has to say it.
    let control = backup.clone().with(&["--restored"]).run();
    control.operator().add_tenant("core").await;
    let told = crate::bus::until_there(&control, "dormouse.tenant.created", 2).await;
    assert!(told[1]["position"].as_u64().unwrap() > 2 << 32, "{told:?}");
}

async fn after_a_restore_the_stream_goes_on(on: On) {
    let redis = Redis::start().await;
    let (backup, id) = restored(&Start::new(on).with(&["--index", &redis.url()])).await;
    let control = backup.run();
    let anna = control.operator();
    until_state(&anna, &id, "control", "erased").await;
    assert_eq!(by(&anna).await, "erased");
    // The index had seen a later state of the server; what is true now wins.
    until(Duration::from_secs(20), "the index", async || {
        anna.get("/v1/index/check").await["differences"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
    anna.patch("/v1/servers/acme%2Fx", json!({ "mode": "doze" })).await;
    assert_eq!(anna.get("/v1/index/check").await["differences"].as_array().unwrap().len(), 0);
}
