//! SIGKILL between every two statements: nothing committed is lost, nothing uncommitted shows.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::bus;
use crate::nodes::{facts, report};
use crate::support::control::Control;
use crate::support::redis::Redis;
use crate::support::{On, Start, on_both, until};

on_both!(
    a_servers_write_is_whole_or_never_was,
    a_threshold_s_write_is_whole_or_never_was,
    a_node_s_write_is_whole_or_never_was,
    a_person_s_write_is_whole_or_never_was,
    a_key_s_write_is_whole_or_never_was,
    an_erasure_is_finished_whatever_dies,
    a_dead_letter_is_kept_whatever_dies,
    what_was_committed_is_told,
    the_index_heals,
);

/// The same for every try: what left nothing behind may be asked again as if for the first time.
const KEY: &str = "kill";

struct Write {
    method: &'static str,
    path: &'static str,
    body: Value,
    /// What the bus is told of it, once.
    told: Option<&'static str>,
    by_node: bool,
    /// It takes an Idempotency-Key.
    repeats: bool,
}

fn write(method: &'static str, path: &'static str, body: Value, told: &'static str) -> Write {
    Write { method, path, body, told: Some(told), by_node: false, repeats: true }
}

/// Something of everything, so that every write has something to change.
async fn furnish(control: &Control) {
    let anna = control.operator();
    anna.add_tenant("acme").await;
    for name in ["fra-1", "fra-2"] {
        anna.post("/v1/nodes", json!({ "name": name, "total_bytes": 8u64 << 30 })).await;
    }
    let x = json!({ "name": "acme/x", "profile": "luanti", "node": "fra-1", "memory_bytes": 1u64 << 30 });
    anna.post("/v1/servers", x).await;
    anna.patch("/v1/servers/acme%2Fx/limits", json!({ "key": "floor", "value": "awake" })).await;
    anna.post("/v1/profiles", json!({ "name": "mine" })).await;
    control.node("fra-1").post("/v1/nodes/fra-1/reports", report(1000, &[("acme/x", "awake")])).await;
    let erasure = anna.post("/v1/erasures", json!({ "subject": "person-1" })).await;
    until_erased(control, erasure["id"].as_str().unwrap()).await;
    bus::until_there(control, "dormouse.erasure.requested", 1).await;
}

async fn until_erased(control: &Control, id: &str) -> Value {
    let anna = control.operator();
    until(Duration::from_secs(40), "the control plane's own erasure", async || {
        let erasure = anna.get(&format!("/v1/erasures/{id}")).await;
        let own = erasure["services"].as_array().unwrap().iter().find(|one| one["service"] == "control");
        (own.unwrap()["state"] == "erased").then_some(erasure)
    })
    .await
}

/// Everything that a write may change.
async fn all_of(control: &Control) -> Vec<Value> {
    let anna = control.operator();
    let mut state = Vec::new();
    for path in [
        "/v1/tenants",
        "/v1/servers",
        "/v1/servers/acme%2Fx/limits",
        "/v1/servers/acme%2Fx/limits/history",
        "/v1/profiles",
        "/v1/nodes",
        "/v1/keys",
        "/v1/erasures",
    ] {
        let reply = anna.ask("GET", path, &[], None).await;
        state.push(serde_json::from_slice(&reply.body).unwrap());
    }
    state.push(json!(kinds(control).await));
    state
}

async fn kinds(control: &Control) -> Vec<String> {
    bus::all(control).await.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
}

/// Dies before the first statement of the write, before the second, …, after its commit. What there was, and is then.
async fn killed_everywhere(on: On, write: &Write) -> [Vec<Value>; 2] {
    let start = Start::new(on).with(&["--erasure-service", "billing"]);
    let control = start.run();
    furnish(&control).await;
    let before = all_of(&control).await;
    control.kill();
    let what = format!("{} {}", write.method, write.path);
    let path = match write.path {
        "/v1/erasures/ID/answers" => {
            format!("/v1/erasures/{}/answers", before[7]["items"][0]["id"].as_str().unwrap())
        }
        path => path.to_owned(),
    };
    for number in 1.. {
        let place = if write.repeats { KEY } else { "no-key" };
        let mut control = start.clone().dies_at(&format!("{place}+{number}")).run();
        let asks = if write.by_node { control.node("fra-1") } else { control.operator() };
        let ask = async || {
            let headers = [("idempotency-key", KEY)];
            let headers = if write.repeats { &headers[..] } else { &[] };
            let body = (write.method != "DELETE").then_some(&write.body);
            asks.0.ask(write.method.parse().unwrap(), &path, headers, body).await
        };
        let state = all_of(&control).await;
        if state == before {
            let asked = ask().await;
            assert!(asked.is_err(), "{what} was answered, and not killed at {number}: {asked:?}");
            assert_eq!(control.wait().signal(), Some(9), "{what} at {number}");
            continue;
        }
        // The last one came after the commit: the whole of it is there, and it is not done twice.
        assert!(number > 3, "{what}: committed before its {number}th statement");
        if write.repeats {
            let reply = ask().await.unwrap();
            assert!(
                reply.status.is_success() && reply.headers.contains_key("idempotency-replayed"),
                "{what}: {} {}",
                reply.status,
                String::from_utf8_lossy(&reply.body)
            );
        }
        if let Some(told) = write.told {
            let told = format!("dormouse.{told}");
            let count = |kinds: &[String]| kinds.iter().filter(|kind| **kind == told).count();
            let earlier: Vec<String> = serde_json::from_value(before[8].clone()).unwrap();
            bus::until_there(&control, &told, count(&earlier) + 1).await;
            assert_eq!(count(&kinds(&control).await), count(&earlier) + 1, "{what}");
        }
        return [before, state];
    }
    unreachable!("a write has an end");
}

async fn a_servers_write_is_whole_or_never_was(on: On) {
    let new = json!({ "name": "acme/new", "profile": "luanti", "memory_bytes": 1u64 << 30, "near": "fra" });
    for one in [
        write("POST", "/v1/servers", new, "server.created"),
        write("PATCH", "/v1/servers/acme%2Fx", json!({ "mode": "full" }), "server.changed"),
        write("DELETE", "/v1/servers/acme%2Fx", Value::Null, "server.deleted"),
    ] {
        killed_everywhere(on, &one).await;
    }
}

async fn a_threshold_s_write_is_whole_or_never_was(on: On) {
    let deep = json!({ "key": "floor", "value": "deep" });
    for one in [
        write("PATCH", "/v1/servers/acme%2Fx/limits", deep.clone(), "server.limits"),
        write("DELETE", "/v1/servers/acme%2Fx/limits/floor", Value::Null, "server.limits"),
        write("PATCH", "/v1/profiles/mine", deep, "profile.changed"),
        write("POST", "/v1/profiles", json!({ "name": "other" }), "profile.created"),
        write("DELETE", "/v1/profiles/mine", Value::Null, "profile.deleted"),
    ] {
        killed_everywhere(on, &one).await;
    }
}

async fn a_node_s_write_is_whole_or_never_was(on: On) {
    let new = json!({ "name": "fra-3", "total_bytes": 1u64 << 30 });
    let mut asleep = report(2000, &[("acme/x", "deep")]);
    asleep["node"] = facts();
    for one in [
        write("POST", "/v1/nodes", new, "node.created"),
        // It has an erasure to answer yet.
        write("DELETE", "/v1/nodes/fra-2", Value::Null, "node.deleted"),
        Write { by_node: true, ..write("POST", "/v1/nodes/fra-1/reports", asleep, "server.stage") },
    ] {
        killed_everywhere(on, &one).await;
    }
}

async fn a_person_s_write_is_whole_or_never_was(on: On) {
    let skipped = json!({ "service": "billing", "state": "skipped", "reason": "invoices, 10 years" });
    for one in [
        write("POST", "/v1/tenants", json!({ "id": "core" }), "tenant.created"),
        write("PATCH", "/v1/tenants/acme", json!({ "server_limit": 7 }), "tenant.changed"),
        Write { told: None, ..write("POST", "/v1/erasures/ID/answers", skipped, "") },
    ] {
        killed_everywhere(on, &one).await;
    }
}

async fn a_key_s_write_is_whole_or_never_was(on: On) {
    let new = json!({ "title": "console", "role": "tenant", "tenant": "acme" });
    let one = Write { repeats: false, ..write("POST", "/v1/keys", new, "key.created") };
    let keys = |state: &[Value]| state[6]["items"].as_array().unwrap().len();
    let [before, after] = killed_everywhere(on, &one).await;
    assert_eq!((keys(&before), keys(&after)), (0, 1));
}

/// Runs until it dies at a place, or until the condition holds; how it ended.
async fn until_dead_or(
    start: &Start,
    place: &str,
    mut done: impl AsyncFnMut(&Control) -> bool,
) -> Option<ExitStatus> {
    let mut control = match start.clone().dies_at(place).try_run() {
        Ok(control) => control,
        // At work that was there before it listened.
        Err(status) => return Some(status),
    };
    let end = std::time::Instant::now() + Duration::from_secs(40);
    loop {
        if let Some(status) = control.ended() {
            return Some(status);
        }
        if done(&control).await {
            return None;
        }
        assert!(std::time::Instant::now() < end, "{place}: neither dead nor done");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a group read and nobody acknowledged counts as abandoned at once, not only after half a minute.
async fn abandon(redis: &Redis) {
    let (stream, mut connection) = ("dormouse:fra:events", redis.connect().await);
    let pending: Vec<(String, String, u64, u64)> = redis::cmd("XPENDING")
        .arg(stream)
        .arg("control")
        .arg("-")
        .arg("+")
        .arg(100)
        .query_async(&mut connection)
        .await
        .unwrap_or_default();
    for (id, ..) in pending {
        let mut claim = redis::cmd("XCLAIM");
        claim
            .arg(stream)
            .arg("control")
            .arg("nobody")
            .arg(0)
            .arg(id)
            .arg("IDLE")
            .arg(3_600_000)
            .arg("JUSTID");
        claim.query_async::<redis::Value>(&mut connection).await.unwrap();
    }
}

/// Until the control plane's own group is done with everything up to this event; it may have read on.
async fn until_read(redis: &Redis, event: &Value) {
    let last = event["position"].as_u64().unwrap();
    let mut connection = redis.connect().await;
    until(Duration::from_secs(20), "the group to have read everything", async || {
        let groups: redis::streams::StreamInfoGroupsReply = redis::cmd("XINFO")
            .arg("GROUPS")
            .arg("dormouse:fra:events")
            .query_async(&mut connection)
            .await
            .ok()?;
        let own = groups.groups.iter().find(|group| group.name == "control")?;
        let read: u64 = own.last_delivered_id.split('-').next()?.parse().ok()?;
        (own.pending == 0 && read >= last).then_some(())
    })
    .await;
}

/// The first consumer, by cursor and by group: between any two of its statements, before and after it acknowledges.
async fn an_erasure_is_finished_whatever_dies(on: On) {
    let redis = Redis::start().await;
    for by_group in [false, true] {
        let mut start = Start::new(on);
        if by_group {
            start = start.with(&["--index", &redis.url()]);
        }
        let control = start.run();
        let anna = control.operator();
        anna.add_tenant("acme").await;
        anna.add_server("acme/x").await;
        control.kill();
        let mut places: Vec<String> = (1..20).map(|number| format!("erase+{number}")).collect();
        let named = ["consumer-read", "consumer-handled", "consumer-acknowledged", "consumer-claimed"];
        places.extend(
            if by_group { &named[..] } else { &["erasure-committed"] }.iter().map(ToString::to_string),
        );
        let (mut survived, mut changes) = (0, 0);
        for (number, place) in places.iter().enumerate() {
            if place.starts_with("erase+") && survived > 0 {
                continue;
            }
            let subject = format!("person-{number}");
            let control = start.run();
            let person = control.who(&["--role", "tenant", "--tenant", "acme", "--subject", &subject]);
            let change = json!({ "key": "floor", "value": if number % 2 == 0 { "deep" } else { "awake" } });
            person.patch("/v1/servers/acme%2Fx/limits", change).await;
            changes += 1;
            let events = bus::until_there(&control, "dormouse.server.limits", changes).await;
            if by_group {
                until_read(&redis, &events[changes - 1]).await;
            }
            control.kill();
            // The request is taken by the instance that dies of it.
            let mut asked = false;
            let mut ask_and_wait = async |control: &Control| {
                let request = json!({ "subject": subject });
                if !asked {
                    let reply = control.operator().try_ask("POST", "/v1/erasures", Some(&request)).await;
                    asked = reply.is_some_and(|reply| reply.status.is_success());
                }
                let known = control.operator().try_ask("GET", "/v1/erasures", None).await;
                let known: Option<Value> = known.and_then(|reply| serde_json::from_slice(&reply.body).ok());
                known.is_some_and(|known| {
                    let of_this =
                        |one: &Value| one["subject"] == subject.as_str() && one["state"] == "completed";
                    known["items"].as_array().unwrap().iter().any(of_this)
                })
            };
            if place == "consumer-claimed" {
                // Somebody must have left something.
                until_dead_or(&start, "consumer-read", &mut ask_and_wait).await.unwrap();
                abandon(&redis).await;
            }
            let died = until_dead_or(&start, place, &mut ask_and_wait).await;
            match died {
                Some(status) => assert_eq!(status.signal(), Some(9), "{place}"),
                // There were fewer statements.
                None => survived += 1,
            }
            if by_group {
                abandon(&redis).await;
            }
            let control = start.run();
            let anna = control.operator();
            let listed = anna.get("/v1/erasures").await;
            let items = listed["items"].as_array().unwrap();
            let of_this: Vec<_> = items.iter().filter(|one| one["subject"] == subject.as_str()).collect();
            assert_eq!(of_this.len(), 1, "{place}: {listed}");
            until_erased(&control, of_this[0]["id"].as_str().unwrap()).await;
            let history = anna.get("/v1/servers/acme%2Fx/limits/history?limit=1").await;
            assert_eq!(history["items"][0]["by"], "erased", "{place}");
            control.kill();
            if by_group {
                abandon(&redis).await;
            }
        }
        assert!(survived > 0, "the places end before the statements do");
    }
}

/// An event that nobody can handle: between the letter and the end of the event, and while it is given back.
async fn a_dead_letter_is_kept_whatever_dies(on: On) {
    let redis = Redis::start().await;
    let start = Start::new(on).with(&["--index", &redis.url()]);
    let control = start.run();
    control.operator().add_tenant("acme").await;
    until_read(&redis, &json!({ "position": 1 })).await;
    control.kill();
    let (stream, mut connection) = ("dormouse:fra:events", redis.connect().await);
    let broken = json!({
        "specversion": "1.0", "id": "x", "type": "dormouse.erasure.requested", "source": "/regions/fra",
        "time": "2026-01-01T00:00:00Z", "datacontenttype": "application/json", "position": 1, "data": {}
    });
    // Behind the one event there is, before the next; read by somebody, and tried often enough.
    for words in [
        &["XADD", stream, "1-1", "event", &broken.to_string()][..],
        &["XREADGROUP", "GROUP", "control", "nobody", "STREAMS", stream, ">"],
        &["XCLAIM", stream, "control", "nobody", "0", "1-1", "IDLE", "3600000", "RETRYCOUNT", "9", "JUSTID"],
    ] {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async::<redis::Value>(&mut connection).await.unwrap();
    }
    let died = until_dead_or(&start, "consumer-buried", async |_| false).await;
    assert_eq!(died.and_then(|status| status.signal()), Some(9));
    abandon(&redis).await;
    let control = start.run();
    until(Duration::from_secs(20), "the second letter", async || {
        let letters = control.operator().get("/v1/dead-letters").await;
        (letters["items"].as_array().unwrap().len() == 2).then_some(())
    })
    .await;
    // At least once: it was written before the one who wrote it died, and again by the next.
    let letters = control.operator().get("/v1/dead-letters").await;
    let letters = letters["items"].as_array().unwrap();
    assert!(
        letters.iter().all(|letter| letter["reason"].as_str().unwrap().contains("an erasure that is none"))
    );
    control.kill();

    let mut control = start.clone().dies_at("redrive-claimed").run();
    let path = format!("/v1/dead-letters/{}/redrive", letters[0]["id"].as_str().unwrap());
    assert!(control.operator().try_ask("POST", &path, None).await.is_none());
    assert_eq!(control.wait().signal(), Some(9));
    let control = start.run();
    let anna = control.operator();
    assert_eq!(anna.get("/v1/dead-letters").await["items"].as_array().unwrap().len(), 2, "the letter stays");
    assert_eq!(anna.ask("POST", &path, &[], None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(anna.get("/v1/dead-letters").await["items"].as_array().unwrap().len(), 1);
}

async fn what_was_committed_is_told(on: On) {
    let redis = Redis::start().await;
    let start = Start::new(on).with(&["--index", &redis.url()]);
    let control = start.run();
    control.operator().add_tenant("acme").await;
    control.kill();
    // The sequencer's transaction has four statements with its commit, the relay's mark two.
    let places = [
        "sequence+1",
        "sequence+2",
        "sequence+3",
        "sequence+4",
        "sequence-after-commit",
        "relay+1",
        "relay+2",
        "relay-marked",
    ];
    for (number, place) in places.into_iter().enumerate() {
        let server = json!({ "name": format!("acme/s{number}"), "profile": "luanti" });
        let mut asked = false;
        let died = until_dead_or(&start, place, async |control| {
            if !asked {
                control.operator().try_ask("POST", "/v1/servers", Some(&server)).await;
                asked = true;
            }
            false
        })
        .await;
        assert_eq!(died.and_then(|status| status.signal()), Some(9), "{place}");
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
    control.kill();
    let x = "/v1/servers/acme%2Fx";
    for place in ["after-commit", "index-before-write", "index-after-write"] {
        for (method, path, body) in [
            ("POST", "/v1/servers", Some(json!({ "name": "acme/x", "profile": "luanti" }))),
            ("PATCH", x, Some(json!({ "mode": "full" }))),
            ("DELETE", x, None),
        ] {
            let mut asked = false;
            let died = until_dead_or(&start, place, async |control| {
                if !asked {
                    control.operator().try_ask(method, path, body.as_ref()).await;
                    asked = true;
                }
                false
            })
            .await;
            assert_eq!(died.and_then(|status| status.signal()), Some(9), "{method} at {place}");
            let control = start.run();
            let anna = control.operator();
            // The next change of the server heals it, and of one that is gone the refresh.
            if method != "DELETE" {
                anna.patch(x, json!({ "mode": "observe" })).await;
            }
            until(Duration::from_secs(20), place, async || {
                anna.get("/v1/index/check").await["differences"].as_array().unwrap().is_empty().then_some(())
            })
            .await;
            control.kill();
        }
    }
}
