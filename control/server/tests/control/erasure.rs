//! Erasure: asked once, answered by all, again after a restore.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::support::control::Asks;
use crate::support::redis::Redis;
use crate::support::{On, Start, on_both, until};

on_both!(an_erasure_is_done_when_every_service_said_so, an_erasure_goes_through_the_stream_too);

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
