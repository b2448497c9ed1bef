//! Redis away for an hour's load; PostgreSQL killed and started again under load; askers who hang up.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use dormouse_api::remote::Reply;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::bus;
use crate::crud::join_all;
use crate::support::control::{Asks, text};
use crate::support::postgres::Cluster;
use crate::support::redis::Redis;
use crate::support::{On, Start, on_both, until};

on_both!(
    redis_is_away_for_an_hour_s_load_and_nobody_who_writes_notices,
    who_hangs_up_leaves_nothing_half_done,
);

const SERVERS: usize = 200;
const WRITERS: usize = 16;

/// An hour of fifty writes a second is 180,000 (`scripts/test long`); here a thirtieth of it.
fn writes() -> usize {
    std::env::var("DORMOUSE_WRITES").map_or(6000, |number| number.parse().unwrap())
}

async fn redis_is_away_for_an_hour_s_load_and_nobody_who_writes_notices(on: On) {
    let writes = writes();
    let mut redis = Redis::start().await;
    // A refresh round every ten seconds.
    let start = Start::new(on).with(&["--index", &redis.url(), "--index-ttl", "30s"]);
    let control = start.run();
    let anna = control.operator();
    anna.add_tenant("acme").await;
    let paths: Vec<String> = (0..SERVERS).map(|number| format!("/v1/servers/acme%2Fs{number}")).collect();
    join_all((0..SERVERS).map(async |number| anna.add_server(&format!("acme/s{number}")).await)).await;
    redis.stop();
    let next = AtomicUsize::new(0);
    join_all((0..WRITERS).map(async |_| {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= writes {
                return;
            }
            anna.patch(&paths[number % SERVERS], json!({ "memory_bytes": number })).await;
        }
    }))
    .await;
    redis.start_again().await;
    // The tenant, its servers, and every change.
    let told = 1 + SERVERS + writes;
    let mut connection = redis.connect().await;
    let most = Duration::from_secs(60) + Duration::from_millis(writes as u64);
    until(most, "the stream to be complete", async || {
        let there: Result<usize, _> =
            redis::cmd("XLEN").arg("dormouse:fra:events").query_async(&mut connection).await;
        (there.ok()? >= told).then_some(())
    })
    .await;
    let expected: Vec<u64> = (1..=told as u64).collect();
    assert_eq!(bus::in_redis(&redis).await, expected, "each once, in one order");
    // By the refresh alone: nothing changes any more, and nobody repairs.
    until(Duration::from_secs(60), "the index to be complete", async || {
        let reply = anna.ask("GET", "/v1/index/check", &[], None).await;
        let check: Value = serde_json::from_slice(&reply.body).ok()?;
        (check["differences"] == json!([])).then_some(())
    })
    .await;
}

async fn who_hangs_up_leaves_nothing_half_done(on: On) {
    let control = Start::new(on).run();
    let anna = control.operator();
    anna.add_tenant("acme").await;
    let paths: Vec<String> = (0..4).map(|number| format!("/v1/servers/acme%2Fs{number}")).collect();
    for number in 0..paths.len() {
        anna.add_server(&format!("acme/s{number}")).await;
    }
    join_all((0..8u64).map(async |who| {
        for number in 0..60u64 {
            let path = &paths[number as usize % paths.len()];
            let body = json!({ "memory_bytes": number });
            let patience = Duration::from_micros((number * 7919 + who * 104_729) % 12_000);
            // Dropped, the connection ends, and with it the request, wherever it is.
            let change = anna.0.ask(Method::PATCH, path, &[], Some(&body));
            let _ = tokio::time::timeout(patience, change).await;
            let _ = tokio::time::timeout(patience, anna.0.ask(Method::GET, path, &[], None::<&()>)).await;
        }
    }))
    .await;
    // All connections to the database are as good as new.
    join_all((0..64).map(async |number| {
        anna.patch(&paths[number % paths.len()], json!({ "memory_bytes": number })).await;
    }))
    .await;
    // A change and its event are one, also of those who were not there any more for the answer.
    until(Duration::from_secs(20), "an event of every change and no other", async || {
        let events = bus::all(&control).await;
        for (number, path) in paths.iter().enumerate() {
            let subject = json!(format!("acme/s{number}"));
            let told = events.iter().filter(|event| event["subject"] == subject).count();
            if anna.get(path).await["version"] != told {
                return None;
            }
        }
        Some(())
    })
    .await;
}

/// One who makes servers, one after the other, and keeps what was answered.
struct Writer {
    name: usize,
    made: Vec<String>,
    /// Not answered with a yes, and whether it was done is unknown.
    unsure: Vec<String>,
}

fn is_unavailable(reply: &Reply) -> bool {
    let problem: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    reply.status == StatusCode::SERVICE_UNAVAILABLE
        && reply.headers["content-type"] == "application/problem+json"
        && reply.headers.contains_key("retry-after")
        && problem["code"] == "unavailable"
}

async fn make(anna: &Asks, name: &str) -> Reply {
    let body = json!({ "name": name, "profile": "luanti" });
    anna.ask("POST", "/v1/servers", &[("idempotency-key", &name.replace('/', "-"))], Some(&body)).await
}

#[tokio::test]
async fn postgresql_is_killed_under_load_and_nothing_committed_is_lost() {
    let cluster = Cluster::start();
    let control = Start::on_cluster(&cluster).run();
    let anna = control.operator();
    anna.add_tenant("acme").await;
    let (made, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let stop = AtomicBool::new(false);
    let writers: Mutex<Vec<Writer>> = Mutex::default();
    let write = async |name: usize| {
        let mut writer = Writer { name, made: Vec::new(), unsure: Vec::new() };
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let server = format!("acme/w{}-{number}", writer.name);
            let reply = make(&anna, &server).await;
            if reply.status == StatusCode::CREATED {
                made.fetch_add(1, Ordering::Relaxed);
                writer.made.push(server);
            } else {
                assert!(is_unavailable(&reply), "{} {}", reply.status, text(&reply));
                refused.fetch_add(1, Ordering::Relaxed);
                writer.unsure.push(server);
                // What Retry-After says, shortened.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        writers.lock().unwrap().push(writer);
    };
    let reaches = async |count: &AtomicUsize, wanted: usize, what: &str| {
        until(Duration::from_secs(60), what, async || {
            (count.load(Ordering::Relaxed) >= wanted).then_some(())
        })
        .await;
    };
    tokio::join!(join_all((0..8).map(write)), async {
        for _ in 0..2 {
            let before = made.load(Ordering::Relaxed);
            reaches(&made, before + 40, "servers to be made").await;
            let before = refused.load(Ordering::Relaxed);
            cluster.kill();
            reaches(&refused, before + 8, "refusals").await;
            cluster.start_again();
        }
        let before = made.load(Ordering::Relaxed);
        reaches(&made, before + 40, "servers to be made again").await;
        stop.store(true, Ordering::Relaxed);
    });
    let writers = writers.into_inner().unwrap();
    // Asked again with the same keys, what nobody knew is done once.
    for name in writers.iter().flat_map(|writer| &writer.unsure) {
        let reply = make(&anna, name).await;
        assert_eq!(reply.status, StatusCode::CREATED, "{name}: {}", text(&reply));
    }
    let all: Vec<&String> =
        writers.iter().flat_map(|writer| writer.made.iter().chain(&writer.unsure)).collect();
    bus::until_there(&control, "dormouse.server.created", all.len()).await;
    let mut told: HashMap<String, usize> = HashMap::new();
    for event in bus::all(&control).await {
        *told.entry(event["subject"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    for name in &all {
        let path = format!("/v1/servers/{}", name.replace('/', "%2F"));
        assert_eq!(anna.get(&path).await["version"], 1, "{name} is there, made once");
        assert_eq!(told.get(*name), Some(&1), "{name} is told of once");
    }
    assert_eq!(told.len(), all.len() + 1, "and nothing else but the tenant");
}
