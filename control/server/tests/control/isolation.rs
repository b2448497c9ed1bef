//! No endpoint gives, changes or betrays another tenant's things.

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::support::control::Asks;
use crate::support::{On, Start, on_both};

on_both!(no_endpoint_betrays_another_tenant);

/// What stands in an address's braces.
fn fill(path: &str, tenant: &str) -> String {
    let server = format!("{tenant}%2Fsecret");
    let name = if path.starts_with("/v1/servers") || path.starts_with("/v1/locate") {
        server.as_str()
    } else {
        tenant
    };
    let mut filled = path.to_owned();
    while let (Some(from), Some(to)) = (filled.find('{'), filled.find('}')) {
        let value = match &filled[from + 1..to] {
            "node" => "fra-1",
            "key" => "doze_after",
            _ => name,
        };
        filled = format!("{}{value}{}", &filled[..from], &filled[to + 1..]);
    }
    filled
}

/// Every endpoint that the document names, with a body that means the other tenant.
async fn every_endpoint(anna: &Asks) -> Vec<(String, String)> {
    let document = anna.get("/openapi.json").await;
    let paths = document["paths"].as_object().unwrap();
    let mut all = Vec::new();
    for (path, methods) in paths {
        for method in methods.as_object().unwrap().keys() {
            all.push((method.to_uppercase(), path.clone()));
        }
    }
    assert!(all.len() >= 10);
    all
}

fn bodies(tenant: &str) -> Vec<Value> {
    vec![
        json!({}),
        json!({ "name": format!("{tenant}/secret"), "profile": "luanti" }),
        json!({ "name": format!("{tenant}/new"), "profile": "luanti" }),
        json!({ "mode": "full" }),
        json!({ "id": tenant, "title": "mine now" }),
        json!({ "title": "mine now" }),
        json!({ "key": "doze_after", "value": "1m" }),
        json!({ "for_ms": 60_000, "reason": "mine", "owner": "me" }),
        json!({ "deep": true }),
        json!({ "subject": "person-1", "tenant": tenant }),
        json!({ "title": "k", "role": "tenant", "tenant": tenant }),
        json!({ "title": "k", "role": "operator" }),
        json!({ "service": "control", "state": "erased" }),
    ]
}

/// What an operator sees of the tenant: it must be the same before and after.
async fn all_of(anna: &Asks, tenant: &str) -> Vec<Value> {
    let mut seen = Vec::new();
    for path in ["/v1/tenants/{t}", "/v1/servers?tenant={t}", "/v1/servers/{t}%2Fsecret"] {
        seen.push(anna.get(&path.replace("{t}", tenant)).await);
    }
    seen
}

async fn no_endpoint_betrays_another_tenant(on: On) {
    let control = Start::new(on).run();
    let anna = control.operator();
    for tenant in ["acme", "core"] {
        anna.add_tenant(tenant).await;
        anna.add_server(&format!("{tenant}/secret")).await;
    }
    let before = all_of(&anna, "core").await;
    let (acme, nobody) = (control.tenant("acme"), control.tenant("nobody"));
    for (method, path) in every_endpoint(&anna).await {
        for asker in [&acme, &nobody] {
            let (filled, lost) = (fill(&path, "core"), fill(&path, "lost"));
            for (body, about_lost) in bodies("core").into_iter().zip(bodies("lost")) {
                let body = (method != "GET").then_some(body);
                let about_lost = (method != "GET").then_some(about_lost);
                let reply = asker.ask(&method, &filled, &[], body.as_ref()).await;
                let said = String::from_utf8_lossy(&reply.body).into_owned();
                assert!(!reply.status.is_server_error(), "{method} {filled}: {said}");
                if path.contains('{') && !path.contains("profiles") {
                    assert!(!reply.status.is_success(), "{method} {filled} {body:?}: {said}");
                }
                // Nothing tells a server that is another's from one that isn't there.
                let other = asker.ask(&method, &lost, &[], about_lost.as_ref()).await;
                assert_eq!(reply.status, other.status, "{method} {filled} {body:?}: {said}");
                let quiet = said.replace("core", "lost");
                assert!(
                    reply.status == StatusCode::OK || quiet == String::from_utf8_lossy(&other.body),
                    "{method} {filled}: {said}"
                );
                if reply.status == StatusCode::OK {
                    assert!(!said.contains("core/"), "{method} {filled}: {said}");
                }
            }
        }
    }
    for query in ["tenant=core", "tenant=core&cursor=core%2Fa"] {
        assert_eq!(acme.problem("GET", &format!("/v1/servers?{query}"), None).await.0, StatusCode::NOT_FOUND);
    }
    assert_eq!(acme.get("/v1/servers?cursor=core%2Fa").await["items"], json!([]));
    assert_eq!(all_of(&anna, "core").await, before);
}

/// The database's own word: a transaction that was begun for one tenant has no other rows, whatever the SQL.
#[tokio::test]
async fn postgresql_itself_hides_the_others() {
    use dormouse_control::store::{Db, Scope};

    let start = Start::new(On::Postgres);
    let control = start.run();
    let anna = control.operator();
    for tenant in ["acme", "core"] {
        anna.add_tenant(tenant).await;
        anna.add_server(&format!("{tenant}/secret")).await;
    }
    let db = Db::open(&start.database).await.unwrap();
    let mut tx = db.write(&Scope::Tenant("acme".to_owned())).await.unwrap();
    for table in ["server", "tenant", "outbox"] {
        let sql = sqlx::AssertSqlSafe(format!("SELECT COUNT(*) AS seen FROM {table}"));
        let seen = tx.row(sql, &[]).await.unwrap().unwrap().number("seen").unwrap();
        let expected = if table == "outbox" { 2 } else { 1 };
        assert_eq!(seen, expected, "{table}");
    }
    assert_eq!(tx.execute("UPDATE server SET profile = 'x' WHERE tenant = 'core'", &[]).await.unwrap(), 0);
    let planted =
        "INSERT INTO outbox (id, kind, tenant, data, created_at) VALUES ('x', 'x', 'core', '{}', 0)";
    assert!(tx.execute(planted, &[]).await.is_err());
}
