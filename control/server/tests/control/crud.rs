//! Tenants and servers: create, read, list, change, delete; what two askers at once see.

use dormouse_api::remote::Reply;
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::bus;
use crate::support::control::{Asks, body_of, text};
use crate::support::{On, Start, on_both};

on_both!(
    a_server_is_made_read_changed_and_deleted,
    a_change_of_an_old_version_is_refused,
    a_repeated_write_is_done_once,
    a_key_is_one_request_s_whatever_became_of_it,
    an_erasure_asked_for_at_once_is_noted_once,
    lists_are_paged_and_filtered,
    a_tenant_has_so_many_servers_and_no_more,
    problems_name_the_field,
    keys_log_in_and_rotate,
);

async fn a_server_is_made_read_changed_and_deleted(on: On) {
    let control = Start::new(on).run();
    let anna = control.operator();
    anna.add_tenant("acme").await;
    let made = anna.add_server("acme/survival").await;
    assert_eq!(made["version"], 1);
    assert_eq!(made["mode"], "observe");
    assert_eq!(made["region"], "fra");
    let path = "/v1/servers/acme%2Fsurvival";
    let reply = anna.ask("GET", path, &[], None).await;
    assert_eq!(reply.headers["etag"], "\"1\"");
    assert_eq!(body_of(&reply, StatusCode::OK), made);
    let changed = anna.patch(path, json!({ "mode": "full", "memory_bytes": 6u64 << 30 })).await;
    assert_eq!((&changed["mode"], &changed["version"]), (&json!("full"), &json!(2)));
    assert_eq!(changed["profile"], "minecraft-java");
    assert_eq!(anna.ask("DELETE", path, &[], None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(anna.ask("GET", path, &[], None).await.status, StatusCode::NOT_FOUND);
    assert_eq!(anna.ask("DELETE", path, &[], None).await.status, StatusCode::NOT_FOUND);
    // The name comes back, its version goes on: an old index entry can never look newer.
    assert_eq!(anna.add_server("acme/survival").await["version"], 4);
    let (status, problem) = anna.problem("DELETE", "/v1/tenants/acme", None).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("refused")));
}

async fn a_change_of_an_old_version_is_refused(on: On) {
    let control = Start::new(on).run();
    let anna = control.operator();
    anna.add_tenant("acme").await;
    anna.add_server("acme/x").await;
    let path = "/v1/servers/acme%2Fx";
    let full = json!({ "mode": "full" });
    let good = anna.ask("PATCH", path, &[("if-match", "\"1\"")], Some(&full)).await;
    assert_eq!(good.status, StatusCode::OK, "{}", text(&good));
    for (method, body) in [("PATCH", Some(&full)), ("DELETE", None)] {
        let late = anna.ask(method, path, &[("if-match", "\"1\"")], body).await;
        assert_eq!(late.status, StatusCode::PRECONDITION_FAILED, "{}", text(&late));
    }
    assert_eq!(anna.get(path).await["version"], 2);
    // Of twenty that read the same version, one wins.
    let body = json!({ "memory_bytes": 1 });
    let race = (0..20).map(|_| anna.ask("PATCH", path, &[("if-match", "\"2\"")], Some(&body)));
    let replies = join_all(race).await;
    let won = replies.iter().filter(|reply| reply.status == StatusCode::OK).count();
    assert_eq!(won, 1);
    assert_eq!(anna.get(path).await["version"], 3);
}

/// Ten times at once, and once more when all is over: all get the first one's answer.
async fn repeated(
    asks: &Asks,
    method: &str,
    path: &str,
    matches: Option<&str>,
    body: Option<&Value>,
) -> Reply {
    let mut headers = vec![("idempotency-key", method)];
    headers.extend(matches.map(|version| ("if-match", version)));
    let race = (0..10).map(|_| asks.ask(method, path, &headers, body));
    let mut replies = join_all(race).await;
    let fresh = replies.iter().filter(|reply| !reply.headers.contains_key("idempotency-replayed")).count();
    assert_eq!(fresh, 1, "{method} {path}");
    replies.push(asks.ask(method, path, &headers, body).await);
    for reply in &replies {
        assert!(reply.status.is_success(), "{method} {path}: {}", text(reply));
        assert_eq!((reply.status, &reply.body), (replies[0].status, &replies[0].body));
        for name in ["etag", "location"] {
            assert_eq!(reply.headers.get(name), replies[0].headers.get(name));
        }
    }
    replies.remove(0)
}

async fn a_repeated_write_is_done_once(on: On) {
    let control = Start::new(on).run();
    let anna = control.operator();
    anna.add_tenant("acme").await;
    let (all, one) = ("/v1/servers", "/v1/servers/acme%2Fx");
    let body = json!({ "name": "acme/x", "profile": "luanti" });
    let made = repeated(&anna, "POST", all, None, Some(&body)).await;
    assert_eq!((made.status, &made.headers["location"]), (StatusCode::CREATED, &one.parse().unwrap()));
    let changed = repeated(&anna, "PATCH", one, None, Some(&json!({ "mode": "full" }))).await;
    assert_eq!(changed.headers["etag"], "\"2\"");
    let bruno = control.who(&["--role", "operator", "--subject", "bruno"]);
    let changed = repeated(&bruno, "PATCH", one, Some("\"2\""), Some(&json!({ "mode": "observe" }))).await;
    assert_eq!(changed.headers["etag"], "\"3\"");
    repeated(&anna, "DELETE", one, Some("\"3\""), None).await;
    assert_eq!(bus::until_there(&control, "dormouse.server.deleted", 1).await.len(), 1);
    let kinds: Vec<Value> = bus::all(&control).await.iter().map(|event| event["type"].clone()).collect();
    let count = |kind: &str| kinds.iter().filter(|one| *one == kind).count();
    assert_eq!((count("dormouse.server.created"), count("dormouse.server.changed")), (1, 2));
    // What came of it may be long gone.
    let again = anna.ask("POST", all, &[("idempotency-key", "POST")], Some(&body)).await;
    assert_eq!((again.status, again.body), (StatusCode::CREATED, made.body));
    assert_eq!(anna.problem("GET", one, None).await.0, StatusCode::NOT_FOUND);
}

async fn a_key_is_one_request_s_whatever_became_of_it(on: On) {
    let control = Start::new(on).run();
    let anna = control.operator();
    anna.add_tenant("acme").await;
    let key = [("idempotency-key", "one")];
    let new = |name: &str| json!({ "name": name, "profile": "luanti" });
    // What is refused keeps no answer: the same request may go better later.
    let mut missing = new("acme/x");
    missing["node"] = json!("fra-1");
    let refused = anna.ask("POST", "/v1/servers", &key, Some(&missing)).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", text(&refused));
    anna.post("/v1/nodes", json!({ "name": "fra-1", "total_bytes": 8u64 << 30 })).await;
    let made = anna.ask("POST", "/v1/servers", &key, Some(&missing)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", text(&made));
    assert!(!made.headers.contains_key("idempotency-replayed"));
    // Another request under the key changes nothing, whether it could have been done or not.
    for other in [new("acme/y"), new("acme/x"), new("nobody/y")] {
        let reply = anna.ask("POST", "/v1/servers", &key, Some(&other)).await;
        assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY, "{other}: {}", text(&reply));
        assert!(text(&reply).contains("Idempotency-Key"), "{other}: {}", text(&reply));
    }
    assert_eq!(anna.get("/v1/servers").await["items"].as_array().unwrap().len(), 1);
    // Two requests of the same key at once: one of them is done.
    let (first, second) = (new("acme/a"), new("acme/b"));
    let both = [("idempotency-key", "both")];
    let race = [&first, &second].map(|body| anna.ask("POST", "/v1/servers", &both, Some(body)));
    let mut statuses: Vec<u16> =
        join_all(race.into_iter()).await.iter().map(|reply| reply.status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 422]);
    assert_eq!(anna.get("/v1/servers").await["items"].as_array().unwrap().len(), 2);
    // Another asker's key of the same name is another key.
    let reply = control.tenant("acme").ask("POST", "/v1/servers", &key, Some(&new("acme/y"))).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{}", text(&reply));
}

async fn an_erasure_asked_for_at_once_is_noted_once(on: On) {
    let start = Start::new(on);
    let ledger = start.keys.with_file_name("ledger");
    let control = start.with(&["--erasure-ledger", ledger.to_str().unwrap()]).run();
    let anna = control.operator();
    repeated(&anna, "POST", "/v1/erasures", None, Some(&json!({ "subject": "person-1" }))).await;
    assert_eq!(anna.get("/v1/erasures").await["items"].as_array().unwrap().len(), 1);
    // Of a second line in the ledger the next start would think that the database was restored.
    assert_eq!(std::fs::read_to_string(ledger).unwrap().lines().count(), 1);
}

async fn lists_are_paged_and_filtered(on: On) {
    let control = Start::new(on).run();
    let anna = control.operator();
    for tenant in ["acme", "acme-2", "core"] {
        anna.add_tenant(tenant).await;
        for number in 0..4 {
            let profile = if number == 0 { "luanti" } else { "minecraft-java" };
            let body = json!({ "name": format!("{tenant}/s{number}"), "profile": profile });
            anna.post("/v1/servers", body).await;
        }
    }
    let mut names = Vec::new();
    let mut path = "/v1/servers?limit=5".to_owned();
    loop {
        let page = anna.get(&path).await;
        names.extend(
            page["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/servers?limit=5&cursor={}", next.replace('/', "%2F"));
    }
    let expected: Vec<String> =
        ["acme", "acme-2", "core"].iter().flat_map(|t| (0..4).map(move |n| format!("{t}/s{n}"))).collect();
    assert_eq!(names, expected);
    let count = async |query: &str| {
        anna.get(&format!("/v1/servers?{query}")).await["items"].as_array().unwrap().len()
    };
    assert_eq!(count("tenant=core").await, 4);
    assert_eq!(count("tenant=core&profile=luanti").await, 1);
    assert_eq!(count("profile=luanti&cursor=acme%2Fzzz").await, 2);
    assert_eq!(count("stage=deep").await, 0);
    assert_eq!(control.tenant("core").get("/v1/servers").await["items"].as_array().unwrap().len(), 4);
    for bad in ["limit=0", "limit=501", "limit=x", "cursor=x", "colour=red", "stage=flying"] {
        let (status, _) = anna.problem("GET", &format!("/v1/servers?{bad}"), None).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{bad}");
    }
}

async fn a_tenant_has_so_many_servers_and_no_more(on: On) {
    let control = Start::new(on).run();
    let anna = control.operator();
    anna.post("/v1/tenants", json!({ "id": "acme", "server_limit": 3 })).await;
    let bodies: Vec<Value> =
        (0..8).map(|n| json!({ "name": format!("acme/s{n}"), "profile": "luanti" })).collect();
    let replies = join_all(bodies.iter().map(|body| anna.ask("POST", "/v1/servers", &[], Some(body)))).await;
    let made = replies.iter().filter(|reply| reply.status == StatusCode::CREATED).count();
    assert_eq!(made, 3);
    let page = anna.get("/v1/servers").await;
    let first = page["items"][0]["name"].as_str().unwrap().replace('/', "%2F");
    anna.ask("DELETE", &format!("/v1/servers/{first}"), &[], None).await;
    anna.add_server("acme/again").await;
    assert_eq!(anna.problem("POST", "/v1/servers", Some(bodies[0].clone())).await.0, StatusCode::CONFLICT);
}

async fn problems_name_the_field(on: On) {
    let control = Start::new(on).run();
    let anna = control.operator();
    anna.add_tenant("acme").await;
    for (body, field) in [
        (json!({ "name": "acme", "profile": "luanti" }), "name"),
        (json!({ "name": "acme/x", "profile": "nogame" }), "profile"),
        (json!({ "name": "acme/x", "profile": "luanti", "node": "nowhere" }), "node"),
        (json!({ "name": "acme/x", "profile": "luanti", "memory_bytes": u64::MAX }), "memory_bytes"),
        (json!({ "name": "acme/x", "profile": "luanti", "memory_bytes": "6GiB" }), "memory_bytes"),
        (json!({ "name": "acme/x", "profile": "luanti", "mode": "sleepy" }), "mode"),
    ] {
        let (status, problem) = anna.problem("POST", "/v1/servers", Some(body.clone())).await;
        assert_eq!(
            (status, &problem["field"]),
            (StatusCode::UNPROCESSABLE_ENTITY, &json!(field)),
            "{problem}"
        );
        assert_eq!(problem["type"], "urn:dormouse:bad-field");
    }
    let large = json!({ "name": "x".repeat(100_000), "profile": "luanti" });
    assert_eq!(anna.problem("POST", "/v1/servers", Some(large)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let plain = anna.ask("POST", "/v1/servers", &[("content-type", "text/plain")], Some(&json!({}))).await;
    assert!(plain.status.is_client_error());
    assert_eq!(anna.problem("GET", "/v1/nothing", None).await.0, StatusCode::NOT_FOUND);
    assert_eq!(anna.problem("PUT", "/v1/servers", None).await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(control.anyone().problem("GET", "/v1/servers", None).await.0, StatusCode::UNAUTHORIZED);
}

async fn keys_log_in_and_rotate(on: On) {
    let control = Start::new(on).run();
    let anna = control.operator();
    anna.add_tenant("acme").await;
    let new = json!({ "title": "console", "role": "tenant", "tenant": "acme" });
    let (old, new) = (anna.post("/v1/keys", new.clone()).await, anna.post("/v1/keys", new).await);
    let login = async |key: &Value| {
        let body = json!({ "key": key["key"]["id"], "secret": key["secret"] });
        control.anyone().ask("POST", "/v1/login", &[], Some(&body)).await
    };
    let token = body_of(&login(&old).await, StatusCode::OK)["token"].as_str().unwrap().to_owned();
    let console = Asks(control.anyone().0.with_token(token));
    assert_eq!(console.get("/v1/tenants").await["items"][0]["id"], "acme");
    let path = format!("/v1/keys/{}", old["key"]["id"].as_str().unwrap());
    assert_eq!(anna.ask("DELETE", &path, &[], None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(login(&old).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(login(&new).await.status, StatusCode::OK);
    let listed = anna.get("/v1/keys").await;
    assert!(!listed.to_string().contains(new["secret"].as_str().unwrap()));
    assert_eq!(console.problem("GET", "/v1/keys", None).await.0, StatusCode::FORBIDDEN);
}

pub async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = futures.map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = pending.iter().map(|_| None).collect();
    std::future::poll_fn(move |context| {
        for (future, slot) in pending.iter_mut().zip(&mut done) {
            if slot.is_none()
                && let std::task::Poll::Ready(output) = future.as_mut().poll(context)
            {
                *slot = Some(output);
            }
        }
        if done.iter().all(Option::is_some) {
            std::task::Poll::Ready(done.iter_mut().filter_map(Option::take).collect())
        } else {
            std::task::Poll::Pending
        }
    })
    .await
}
