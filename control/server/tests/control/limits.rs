//! Thresholds: layers, history, who may set them.

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::support::{On, Start, on_both};

on_both!(the_server_s_layer_stands_above_the_game_s, a_game_s_layer_is_the_operator_s);

fn of<'a>(explain: &'a Value, key: &str) -> &'a Value {
    explain["settings"].as_array().unwrap().iter().find(|setting| setting["key"] == key).unwrap()
}

async fn the_server_s_layer_stands_above_the_game_s(on: On) {
    let control = Start::new(on).run();
    let anna = control.operator();
    anna.add_tenant("acme").await;
    anna.add_server("acme/x").await;
    let acme = control.tenant("acme");
    let path = "/v1/servers/acme%2Fx/limits";
    let shipped = acme.get(path).await;
    assert_eq!(
        (&of(&shipped, "doze_after")["value"], &of(&shipped, "doze_after")["won"]),
        (&json!("10m"), &json!("profile"))
    );
    assert_eq!(of(&shipped, "query_every")["won"], "built_in");
    anna.patch("/v1/profiles/minecraft-java", json!({ "key": "doze_after", "value": "15m" })).await;
    let set = acme.patch(path, json!({ "key": "doze_after", "value": "3m", "reason": "event" })).await;
    let setting = of(&set, "doze_after");
    assert_eq!((&setting["value"], &setting["won"]), (&json!("3m"), &json!("server")));
    let layers: Vec<&str> =
        setting["layers"].as_array().unwrap().iter().map(|l| l["value"].as_str().unwrap()).collect();
    assert_eq!(layers, ["30m", "15m", "3m"]);
    let reply = acme.ask("DELETE", &format!("{path}/doze_after"), &[], None).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(of(&acme.get(path).await, "doze_after")["value"], "15m");
    let again = acme.ask("DELETE", &format!("{path}/doze_after"), &[], None).await;
    assert_eq!(again.status, StatusCode::NOT_FOUND);
    let history = acme.get(&format!("{path}/history")).await;
    let items = history["items"].as_array().unwrap();
    assert_eq!(items.len(), 2);
    assert_eq!(
        (&items[1]["new"], &items[1]["by"], &items[1]["reason"]),
        (&json!("3m"), &json!("acme-console"), &json!("event"))
    );
    assert_eq!((&items[0]["old"], &items[0]["new"]), (&json!("3m"), &Value::Null));
    let old = acme
        .ask("PATCH", path, &[("if-match", "\"1\"")], Some(&json!({ "key": "floor", "value": "deep" })))
        .await;
    assert_eq!(old.status, StatusCode::PRECONDITION_FAILED);
    let (status, problem) =
        acme.problem("PATCH", path, Some(json!({ "key": "floor", "value": "cellar" }))).await;
    assert_eq!((status, &problem["field"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("value")));
}

async fn a_game_s_layer_is_the_operator_s(on: On) {
    let control = Start::new(on).run();
    let anna = control.operator();
    anna.add_tenant("acme").await;
    let acme = control.tenant("acme");
    let set = json!({ "key": "floor", "value": "deep" });
    assert_eq!(
        acme.problem("PATCH", "/v1/profiles/luanti", Some(set.clone())).await.0,
        StatusCode::FORBIDDEN
    );
    anna.post("/v1/profiles", json!({ "name": "our-game" })).await;
    anna.patch("/v1/profiles/our-game", set).await;
    assert_eq!(of(&acme.get("/v1/profiles/our-game").await, "floor")["value"], "deep");
    acme.post("/v1/servers", json!({ "name": "acme/x", "profile": "our-game" })).await;
    let listed = acme.get("/v1/profiles?cursor=our-gamd").await;
    assert_eq!(
        (&listed["items"][0]["name"], &listed["items"][0]["servers"]),
        (&json!("our-game"), &json!(1))
    );
    assert_eq!(anna.problem("DELETE", "/v1/profiles/our-game", None).await.0, StatusCode::CONFLICT);
    anna.ask("DELETE", "/v1/servers/acme%2Fx", &[], None).await;
    assert_eq!(anna.ask("DELETE", "/v1/profiles/our-game", &[], None).await.status, StatusCode::NO_CONTENT);
    // A shipped game that was removed stays removed, also after a restart.
    assert_eq!(anna.ask("DELETE", "/v1/profiles/factorio", &[], None).await.status, StatusCode::NO_CONTENT);
    let control = {
        let start = control.start.clone();
        control.kill();
        start.run()
    };
    let (anna, acme) = (control.operator(), control.tenant("acme"));
    assert_eq!(anna.problem("GET", "/v1/profiles/factorio", None).await.0, StatusCode::NOT_FOUND);
    assert_eq!(acme.problem("GET", "/v1/profiles/our-game/history", None).await.0, StatusCode::NOT_FOUND);
}
