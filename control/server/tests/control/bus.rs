//! Events: complete, in order, by cursor, by SSE, and through Redis.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use dormouse_api::registry::bus::BusEvent;
use dormouse_control::bus::consume::{self, Group};
use dormouse_control::bus::read;
use dormouse_control::store::{Arg, Db, Scope};
use http_body_util::BodyExt;
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::crud::join_all;
use crate::support::control::Control;
use crate::support::redis::Redis;
use crate::support::{On, Start, on_both, until};

on_both!(
    every_change_is_an_event_in_one_order,
    a_stream_takes_up_where_it_ended,
    redis_gets_everything_also_after_it_was_away_or_emptied,
    a_dead_consumer_s_events_are_taken_over_and_what_fails_is_dead,
    the_stream_is_trimmed_as_far_as_every_group_has_read,
    without_redis_what_is_old_goes_too,
);

/// All events there are, by cursor.
pub async fn all(control: &Control) -> Vec<Value> {
    let service = control.service("billing");
    let (mut events, mut after) = (Vec::new(), "0".to_owned());
    loop {
        let page = service.get(&format!("/v1/bus?limit=7&after={after}")).await;
        events.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => return events,
        }
    }
}

/// Waits until the events of `count` kinds are there.
pub async fn until_there(control: &Control, kind: &str, count: usize) -> Vec<Value> {
    until(Duration::from_secs(20), "events", async || {
        let events: Vec<Value> =
            all(control).await.into_iter().filter(|event| event["type"] == kind).collect();
        (events.len() >= count).then_some(events)
    })
    .await
}

async fn every_change_is_an_event_in_one_order(on: On) {
    let start = Start::new(on);
    let (control, second) = (start.run(), start.run());
    let anna = control.operator();
    anna.add_tenant("acme").await;
    let other = second.operator();
    let names: Vec<String> = (0..30).map(|number| format!("acme/s{number}")).collect();
    join_all(names.iter().enumerate().map(async |(number, name)| {
        let asks = if number % 2 == 0 { &anna } else { &other };
        asks.add_server(name).await;
        asks.patch(&format!("/v1/servers/{}", name.replace('/', "%2F")), json!({ "mode": "full" })).await;
    }))
    .await;
    let changed = until_there(&control, "dormouse.server.changed", 30).await;
    assert_eq!(changed.len(), 30);
    let events = all(&control).await;
    let positions: Vec<u64> = events.iter().map(|event| event["position"].as_u64().unwrap()).collect();
    assert_eq!(positions, (1..=events.len() as u64).collect::<Vec<_>>(), "no gaps, one order");
    let mut sequences: HashMap<String, u64> = HashMap::new();
    for event in events.iter().filter(|event| event["type"].as_str().unwrap().starts_with("dormouse.server."))
    {
        let sequence = event["data"]["sequence"].as_u64().unwrap();
        let before = sequences.insert(event["subject"].as_str().unwrap().to_owned(), sequence);
        assert!(before.is_none_or(|before| before < sequence), "{event}");
        assert_eq!(
            (&event["specversion"], &event["source"], &event["tenant"]),
            (&json!("1.0"), &json!("/regions/fra"), &json!("acme"))
        );
    }
    assert_eq!(control.tenant("acme").problem("GET", "/v1/bus", None).await.0, StatusCode::FORBIDDEN);
    let only = control.service("x").get("/v1/bus?type=dormouse.tenant.").await;
    assert_eq!(only["items"].as_array().unwrap().len(), 1);
}

/// The next event's position of a stream.
async fn next(body: &mut hyper::body::Incoming, read: &mut String) -> u64 {
    loop {
        if let Some((frame, rest)) = read.split_once("\n\n") {
            let id = frame.lines().find_map(|line| line.strip_prefix("id: ")).map(|id| id.parse().unwrap());
            *read = rest.to_owned();
            if let Some(id) = id {
                return id;
            }
            continue;
        }
        let frame =
            tokio::time::timeout(Duration::from_secs(20), body.frame()).await.unwrap().unwrap().unwrap();
        read.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
}

async fn a_stream_takes_up_where_it_ended(on: On) {
    let control = Start::new(on).run();
    let anna = control.operator();
    let service = control.service("billing");
    let sse = [("accept", "text/event-stream")];
    anna.add_tenant("acme").await;
    let (mut body, mut read) = (service.0.open("/v1/bus", &sse).await.unwrap().into_body(), String::new());
    assert_eq!(next(&mut body, &mut read).await, 1);
    anna.add_server("acme/x").await;
    assert_eq!(next(&mut body, &mut read).await, 2);
    drop(body);
    anna.add_server("acme/y").await;
    let again = [("accept", "text/event-stream"), ("last-event-id", "2")];
    let (mut body, mut read) = (service.0.open("/v1/bus", &again).await.unwrap().into_body(), String::new());
    assert_eq!(next(&mut body, &mut read).await, 3);
}

/// The positions in the region's stream.
pub async fn in_redis(redis: &Redis) -> Vec<u64> {
    let mut connection = redis.connect().await;
    let entries: Vec<(String, Vec<String>)> = redis::cmd("XRANGE")
        .arg("dormouse:fra:events")
        .arg("-")
        .arg("+")
        .query_async(&mut connection)
        .await
        .unwrap_or_default();
    entries.iter().map(|(id, _)| id.split_once('-').unwrap().0.parse().unwrap()).collect()
}

async fn complete(redis: &Redis, count: u64) {
    until(Duration::from_secs(30), "the stream to be complete", async || {
        (in_redis(redis).await == (1..=count).collect::<Vec<_>>()).then_some(())
    })
    .await;
}

async fn redis_gets_everything_also_after_it_was_away_or_emptied(on: On) {
    let mut redis = Redis::start().await;
    let start = Start::new(on).with(&["--index", &redis.url()]);
    let (control, second) = (start.run(), start.run());
    let anna = control.operator();
    anna.add_tenant("acme").await;
    for number in 0..10 {
        let asks = if number % 2 == 0 { control.operator() } else { second.operator() };
        asks.add_server(&format!("acme/s{number}")).await;
    }
    complete(&redis, 11).await;
    redis.stop();
    for number in 10..30 {
        anna.add_server(&format!("acme/s{number}")).await;
    }
    redis.start_again().await;
    complete(&redis, 31).await;
    let mut connection = redis.connect().await;
    redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await.unwrap();
    anna.add_server("acme/last").await;
    complete(&redis, 32).await;
}

async fn a_dead_consumer_s_events_are_taken_over_and_what_fails_is_dead(on: On) {
    let redis = Redis::start().await;
    let control = Start::new(on).with(&["--index", &redis.url()]).run();
    let anna = control.operator();
    for tenant in ["acme", "core", "bad"] {
        anna.add_tenant(tenant).await;
    }
    complete(&redis, 3).await;
    // Somebody read all three and died.
    let mut connection = redis.connect().await;
    let stream = "dormouse:fra:events";
    redis::cmd("XGROUP")
        .arg("CREATE")
        .arg(stream)
        .arg("billing")
        .arg("0")
        .query_async::<()>(&mut connection)
        .await
        .unwrap();
    let _: redis::Value = redis::cmd("XREADGROUP")
        .arg("GROUP")
        .arg("billing")
        .arg("gone")
        .arg("COUNT")
        .arg(3)
        .arg("STREAMS")
        .arg(stream)
        .arg(">")
        .query_async(&mut connection)
        .await
        .unwrap();
    let group = Group {
        region: "fra".to_owned(),
        name: "billing".to_owned(),
        consumer: "living".to_owned(),
        idle: Duration::from_millis(100),
        kind: Some("dormouse.tenant.created".to_owned()),
    };
    let seen: Mutex<Vec<String>> = Mutex::default();
    let broken = std::sync::atomic::AtomicBool::new(true);
    let client = redis::Client::open(redis.url()).unwrap();
    let handle = |event: BusEvent| {
        let subject = event.subject.unwrap();
        let refused = subject == "bad" && broken.load(std::sync::atomic::Ordering::Relaxed);
        if !refused {
            seen.lock().unwrap().push(subject);
        }
        std::future::ready(if refused { Err("no such account") } else { Ok(()) })
    };
    let letters = async || {
        let letters = anna.get("/v1/dead-letters").await["items"].as_array().unwrap().clone();
        (!letters.is_empty()).then_some(letters)
    };
    let letter = tokio::select! {
        ended = consume::run(&client, &group, &handle) => panic!("{ended:?}"),
        letters = until(Duration::from_secs(40), "a dead letter", letters) => letters[0].clone(),
    };
    assert_eq!(*seen.lock().unwrap(), ["acme", "core"]);
    assert_eq!(
        (&letter["group"], &letter["reason"], &letter["event"]["subject"]),
        (&json!("billing"), &json!("no such account"), &json!("bad"))
    );
    assert!(letter["deliveries"].as_u64().unwrap() >= consume::ATTEMPTS as u64);
    broken.store(false, std::sync::atomic::Ordering::Relaxed);
    let path = format!("/v1/dead-letters/{}/redrive", letter["id"].as_str().unwrap());
    assert_eq!(anna.ask("POST", &path, &[], None).await.status, StatusCode::NO_CONTENT);
    tokio::select! {
        ended = consume::run(&client, &group, &handle) => panic!("{ended:?}"),
        () = until(Duration::from_secs(20), "the redriven event", async || {
            (seen.lock().unwrap().last().map(String::as_str) == Some("bad")).then_some(())
        }) => {}
    }
    assert!(letters().await.is_none());
    assert_eq!(anna.ask("POST", &path, &[], None).await.status, StatusCode::NOT_FOUND);
}

async fn the_stream_is_trimmed_as_far_as_every_group_has_read(on: On) {
    use dormouse_control::bus::trim;

    let redis = Redis::start().await;
    let control = Start::new(on).with(&["--index", &redis.url()]).run();
    let anna = control.operator();
    let client = redis::Client::open(redis.url()).unwrap();
    assert_eq!(trim::run(&client, "nowhere", 100).await.unwrap(), 0);
    for number in 0..10 {
        anna.add_tenant(&format!("t{number}")).await;
    }
    complete(&redis, 10).await;
    let mut connection = redis.connect().await;
    let mut group = async |words: &[&str]| {
        let mut command = redis::cmd(words[0]);
        words[1..].iter().for_each(|word| {
            command.arg(*word);
        });
        command.query_async::<redis::Value>(&mut connection).await.unwrap();
    };
    let stream = "dormouse:fra:events";
    group(&["XGROUP", "CREATE", stream, "slow", "0"]).await;
    group(&["XREADGROUP", "GROUP", "slow", "a", "COUNT", "4", "STREAMS", stream, ">"]).await;
    group(&["XACK", stream, "slow", "1-0", "2-0", "4-0"]).await;
    // What it read and has not acknowledged stays, and all that the outbox still has.
    assert_eq!(trim::run(&client, "fra", 100).await.unwrap(), 2);
    assert_eq!(in_redis(&redis).await, (3..=10).collect::<Vec<_>>());
    group(&["XACK", stream, "slow", "3-0"]).await;
    assert_eq!(trim::run(&client, "fra", 4).await.unwrap(), 1);
    assert_eq!(trim::run(&client, "fra", 100).await.unwrap(), 1);
    group(&["XREADGROUP", "GROUP", "slow", "a", "COUNT", "100", "STREAMS", stream, ">"]).await;
    let rest: Vec<String> = (5..=10).map(|position| format!("{position}-0")).collect();
    let mut words = vec!["XACK", stream, "slow"];
    words.extend(rest.iter().map(String::as_str));
    group(&words).await;
    // The control plane's own group reads too.
    until(Duration::from_secs(20), "all groups to be done", async || {
        trim::run(&client, "fra", 100).await.unwrap();
        in_redis(&redis).await.is_empty().then_some(())
    })
    .await;
    // Positions go on, and so does the stream.
    anna.add_tenant("last").await;
    until(Duration::from_secs(20), "the next event", async || (in_redis(&redis).await == [11]).then_some(()))
        .await;
}

/// The control plane's own reader passes what is no erasure, and holds it no longer than its time.
async fn without_redis_what_is_old_goes_too(on: On) {
    let start = Start::new(on);
    let control = start.run();
    let db = Db::open(&start.database).await.unwrap();
    let mut tx = db.write(&Scope::Region).await.unwrap();
    for number in 0..1200u32 {
        let old = [Arg::from(number.to_string()), "server.changed".into(), "{}".into(), 0u32.into()];
        tx.insert_last("outbox", "id, kind, data, created_at", &old);
    }
    tx.commit().await.unwrap();
    until(Duration::from_secs(20), "the reader to pass them", async || {
        let mut tx = db.read(&Scope::Region).await.unwrap();
        (read::position(&mut tx, "control").await.unwrap() == 1200).then_some(())
    })
    .await;
    // Old rows are looked for at the start.
    control.kill();
    let control = start.run();
    until(Duration::from_secs(20), "the old events to go", async || {
        let page = control.service("billing").get("/v1/bus?limit=1&after=0").await;
        page["items"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
}
