//! The index, two regions, and placement.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::nodes::report;
use crate::support::control::{Asks, Control};
use crate::support::redis::Redis;
use crate::support::{On, Start, on_both, until};

on_both!(
    the_index_follows_and_an_old_write_never_wins,
    every_difference_is_found_and_repaired,
    redis_away_stops_nobody,
    two_regions_correct_each_other,
    a_gateway_finds_the_region_and_follows_a_server_that_moves,
    two_who_place_at_once_share_what_is_free,
);

async fn entry(redis: &Redis, server: &str) -> Option<Value> {
    let text: Option<String> = redis::cmd("HGET")
        .arg(format!("dormouse:server:{server}"))
        .arg("entry")
        .query_async(&mut redis.connect().await)
        .await
        .unwrap();
    text.map(|text| serde_json::from_str(&text).unwrap())
}

async fn until_entry(redis: &Redis, server: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    until(Duration::from_secs(20), what, async || entry(redis, server).await.filter(|entry| fits(entry)))
        .await
}

async fn the_index_follows_and_an_old_write_never_wins(on: On) {
    use dormouse_control::index::{Entry, Index, Put};

    let redis = Redis::start().await;
    let control = Start::new(on).with(&["--index", &redis.url()]).run();
    let (anna, node) = crate::nodes::with_node(&control).await;
    let known = until_entry(&redis, "acme/x", "the new server", |_| true).await;
    assert_eq!(
        (&known["region"], &known["node"], &known["sequence"]),
        (&json!("fra"), &json!("fra-1"), &json!(1))
    );
    node.post("/v1/nodes/fra-1/reports", report(1000, &[("acme/x", "deep")])).await;
    until_entry(&redis, "acme/x", "the stage", |entry| entry["stage"] == "deep").await;
    anna.ask("DELETE", "/v1/servers/acme%2Fx", &[], None).await;
    let grave = until_entry(&redis, "acme/x", "the grave", |entry| entry["deleted"] == true).await;

    let client = redis::Client::open(redis.url()).unwrap();
    let index = Index::new(&client, Duration::from_mins(1)).unwrap();
    let mut late: Entry = serde_json::from_value(known).unwrap();
    assert_eq!(index.put(&[late.clone()]).await.unwrap(), [Put::Older]);
    // Another region may take the name of a grave, and then it is theirs.
    late.region = "lon".to_owned();
    assert_eq!(index.put(&[late]).await.unwrap(), [Put::Written]);
    let grave: Entry = serde_json::from_value(grave).unwrap();
    assert_eq!(index.put(&[grave]).await.unwrap(), [Put::Foreign]);
    assert_eq!(index.get("acme/x").await.unwrap().unwrap().region, "lon");
}

async fn differences(anna: &Asks) -> Vec<(String, String)> {
    let check = anna.get("/v1/index/check").await;
    let pair =
        |one: &Value| (one["server"].as_str().unwrap().to_owned(), one["kind"].as_str().unwrap().to_owned());
    let mut found: Vec<_> = check["differences"].as_array().unwrap().iter().map(pair).collect();
    found.sort();
    found
}

async fn every_difference_is_found_and_repaired(on: On) {
    let redis = Redis::start().await;
    let control = Start::new(on).with(&["--index", &redis.url()]).run();
    let anna = control.operator();
    anna.add_tenant("acme").await;
    for name in ["acme/fine", "acme/missing", "acme/old", "acme/twin"] {
        anna.add_server(name).await;
        until_entry(&redis, name, name, |_| true).await;
    }
    assert_eq!(differences(&anna).await, []);
    let mut connection = redis.connect().await;
    let mut set = async |server: &str, region: &str, sequence: u64| {
        let entry = json!({
            "server": server, "region": region, "url": "http://127.0.0.1:1", "node": null, "stage": null,
            "sequence": sequence, "deleted": false
        });
        redis::cmd("HSET")
            .arg(format!("dormouse:server:{server}"))
            .arg(&[("region", region), ("sequence", &sequence.to_string()), ("deleted", "0")])
            .arg("entry")
            .arg(entry.to_string())
            .query_async::<()>(&mut connection)
            .await
            .unwrap();
    };
    set("acme/old", "fra", 0).await;
    set("acme/ghost", "fra", 7).await;
    set("acme/twin", "lon", 1).await;
    redis::cmd("DEL")
        .arg("dormouse:server:acme/missing")
        .query_async::<()>(&mut redis.connect().await)
        .await
        .unwrap();
    let pair = |server: &str, kind: &str| (format!("acme/{server}"), kind.to_owned());
    let expected =
        [pair("ghost", "ghost"), pair("missing", "missing"), pair("old", "old"), pair("twin", "foreign")];
    assert_eq!(differences(&anna).await, expected);
    // Another region's living server is nothing to be overwritten: people must look.
    let left = anna.post("/v1/index/repair", json!({})).await;
    assert_eq!(left["differences"], json!([{ "server": "acme/twin", "kind": "foreign" }]));
}

async fn redis_away_stops_nobody(on: On) {
    let mut redis = Redis::start().await;
    let control = Start::new(on).with(&["--index", &redis.url(), "--index-ttl", "3s"]).run();
    let anna = control.operator();
    anna.add_tenant("acme").await;
    redis.stop();
    // A thirtieth of an hour's load at 50 writes a second is 6,000; a twentieth of that is enough to see it hold.
    let writes = 300;
    for number in 0..writes {
        anna.add_server(&format!("acme/s{number:04}")).await;
    }
    redis.start_again().await;
    // One refresh round is a third of the entries' time.
    until(Duration::from_secs(20), "the index to be whole", async || {
        differences(&anna).await.is_empty().then_some(())
    })
    .await;
    let mut connection = redis.connect().await;
    until(Duration::from_secs(20), "the stream to be complete", async || {
        let sent: u64 =
            redis::cmd("XLEN").arg("dormouse:fra:events").query_async(&mut connection).await.unwrap();
        // The tenant, and each server.
        (sent == writes + 1).then_some(())
    })
    .await;
}

fn region(on: On, name: &str, redis: &Redis, nearest: &str) -> Start {
    let mut start = Start::new(on).with(&["--index", &redis.url(), "--nearest", nearest]);
    start.region = name.to_owned();
    start
}

/// Each knows the other's public keys.
fn befriend(one: &Start, other: &Start) {
    for (from, to) in [(one, other), (other, one)] {
        for file in std::fs::read_dir(&from.keys).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "public") {
                std::fs::copy(&path, to.keys.join(path.file_name().unwrap())).unwrap();
            }
        }
    }
}

fn fra_and_lon(on: On, redis: &Redis) -> (Control, Control) {
    let (fra, lon) = (region(on, "fra", redis, "lon"), region(on, "lon", redis, "fra"));
    fra.token(&["--role", "operator"]);
    lon.token(&["--role", "operator"]);
    befriend(&fra, &lon);
    (fra.run(), lon.run())
}

async fn with_nodes(control: &Control, total: u64) -> Asks {
    let anna = control.operator();
    anna.add_tenant("acme").await;
    for number in 1..=2 {
        let name = format!("{}-{number}", control.start.region);
        anna.post("/v1/nodes", json!({ "name": name, "total_bytes": total })).await;
    }
    anna
}

async fn two_regions_correct_each_other(on: On) {
    let redis = Redis::start().await;
    let (fra, lon) = fra_and_lon(on, &redis);
    let (anna, lena) = (with_nodes(&fra, 4 << 30).await, with_nodes(&lon, 64 << 30).await);
    let mut connection = redis.connect().await;
    until(Duration::from_secs(30), "both regions to be told of", async || {
        let text: Option<String> =
            redis::cmd("GET").arg("dormouse:region:lon").query_async(&mut connection).await.unwrap();
        text.filter(|text| text.contains(&(64u64 << 30).to_string()))
    })
    .await;
    let new = |name: &str, gib: u64, near: &str| json!({ "name": name, "profile": "luanti", "memory_bytes": gib << 30, "near": near });
    let here = anna.post("/v1/servers", new("acme/small", 2, "fra")).await;
    assert_eq!((&here["region"], here["node"].is_string()), (&json!("fra"), true));
    // No room here: the nearest that has room.
    let reply = anna.ask("POST", "/v1/servers", &[], Some(&new("acme/large", 16, "fra"))).await;
    assert_eq!(reply.status, StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(reply.headers["location"].to_str().unwrap(), format!("{}/v1/servers", lon.url));
    let there = lena.post("/v1/servers", new("acme/large", 16, "lon")).await;
    assert_eq!(there["region"], "lon");
    assert_eq!(
        anna.problem("POST", "/v1/servers", Some(new("acme/huge", 500, "fra"))).await.0,
        StatusCode::CONFLICT
    );
    until_entry(&redis, "acme/large", "the new server", |_| true).await;

    // Whoever asks the wrong region is told the right one, and has a token that it takes.
    let acme = fra.tenant("acme");
    let reply = acme.ask("GET", "/v1/servers/acme%2Flarge", &[], None).await;
    assert_eq!(reply.status, StatusCode::MISDIRECTED_REQUEST);
    let place = acme.get("/v1/locate/acme%2Flarge").await;
    assert_eq!(
        (&place["region"], &place["url"], &place["own"]),
        (&json!("lon"), &json!(lon.url), &json!(false))
    );
    let token = place["token"].as_str().unwrap();
    let handed = Asks(lon.anyone().0.with_token(token));
    assert_eq!(handed.get("/v1/servers/acme%2Flarge").await["region"], "lon");
    let wrong = Asks(fra.anyone().0.with_token(token));
    assert_eq!(wrong.problem("GET", "/v1/servers", None).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(
        fra.tenant("core").problem("GET", "/v1/locate/acme%2Flarge", None).await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(acme.problem("GET", "/v1/servers/acme%2Fnowhere", None).await.0, StatusCode::NOT_FOUND);
}

async fn two_who_place_at_once_share_what_is_free(on: On) {
    let start = Start::new(on);
    let (control, second) = (start.run(), start.run());
    let anna = with_nodes(&control, 4 << 30).await;
    let other = second.tenant("acme");
    let bodies: Vec<Value> = (0..24)
        .map(|number| {
            json!({ "name": format!("acme/s{number}"), "profile": "luanti", "memory_bytes": 1u64 << 30, "near": "fra" })
        })
        .collect();
    let replies = crate::crud::join_all(bodies.iter().enumerate().map(async |(number, body)| {
        let asks = if number % 2 == 0 { &anna } else { &other };
        asks.ask("POST", "/v1/servers", &[], Some(body)).await.status
    }))
    .await;
    let of = |wanted: StatusCode| replies.iter().filter(|status| **status == wanted).count();
    assert_eq!((of(StatusCode::CREATED), of(StatusCode::CONFLICT)), (8, 16), "{replies:?}");
    let nodes = anna.get("/v1/nodes").await;
    for node in nodes["items"].as_array().unwrap() {
        let servers = anna.get(&format!("/v1/servers?node={}", node["name"].as_str().unwrap())).await;
        assert_eq!(
            (&node["free_bytes"], servers["items"].as_array().unwrap().len()),
            (&json!(0), 4),
            "{node}"
        );
    }
}

async fn a_gateway_finds_the_region_and_follows_a_server_that_moves(on: On) {
    use dormouse_api::gateway::Gateway;
    use dormouse_api::token::{PublicKeys, TokenError};
    use hyper::Method;

    let redis = Redis::start().await;
    let (fra, lon) = fra_and_lon(on, &redis);
    let (anna, lena) = (with_nodes(&fra, 4 << 30).await, with_nodes(&lon, 4 << 30).await);
    lena.add_server("acme/x").await;
    until_entry(&redis, "acme/x", "the new server", |_| true).await;
    let caller = fra.start.token(&["--role", "tenant", "--tenant", "acme"]);
    let gateway = Gateway::new(fra.anyone().0, None);
    let ask = async |method: Method, path: &str| {
        gateway.ask(&caller, "acme/x", &method, path, &[], None::<&Value>).await
    };
    let path = "/v1/servers/acme%2Fx";
    let of = |reply: dormouse_api::remote::Reply| {
        assert_eq!(reply.status, StatusCode::OK, "{}", crate::support::control::text(&reply));
        serde_json::from_slice::<Value>(&reply.body).unwrap()["region"].clone()
    };
    assert_eq!(of(ask(Method::GET, path).await.unwrap()), "lon");

    // What a gateway in lon sees of such a request: lon's public keys tell that it is good, and good there only.
    let place = fra.tenant("acme").get("/v1/locate/acme%2Fx").await;
    let keys = PublicKeys::load(&lon.start.keys).unwrap();
    let (claims, _) = keys.verify("lon", place["token"].as_str().unwrap()).unwrap();
    assert_eq!((claims.tenant.as_deref(), claims.sub.as_str()), (Some("acme"), "acme-console"));
    assert_eq!(keys.verify("fra", place["token"].as_str().unwrap()).unwrap_err(), TokenError::OtherRegion);

    // It moves: what the gateway remembers is wrong now, and the region that it remembers corrects it.
    assert_eq!(lena.ask("DELETE", path, &[], None).await.status, StatusCode::NO_CONTENT);
    until_entry(&redis, "acme/x", "the grave", |entry| entry["deleted"] == true).await;
    anna.add_server("acme/x").await;
    until_entry(&redis, "acme/x", "the new home", |entry| entry["region"] == "fra").await;
    assert_eq!(of(ask(Method::GET, path).await.unwrap()), "fra");
    // A region that is gone is an error at once, and forgotten.
    assert_eq!(anna.ask("DELETE", path, &[], None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(ask(Method::GET, path).await.unwrap().status, StatusCode::NOT_FOUND);
    let unknown = gateway.ask(&caller, "acme/none", &Method::GET, path, &[], None::<&Value>).await;
    assert!(unknown.is_err(), "{unknown:?}");
}
