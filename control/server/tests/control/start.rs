//! Starting: migrations by several instances, databases that must be refused, the documents that are served.

use std::process::Stdio;
use std::time::Instant;

use hyper::StatusCode;

use crate::crud::join_all;
use crate::support::{On, Start, on_both, postgres};

on_both!(several_instances_start_on_one_empty_database, a_restart_forgets_nothing);

async fn several_instances_start_on_one_empty_database(on: On) {
    let start = Start::new(on);
    start.token(&["--role", "operator"]);
    let starts = (0..4).map(|_| {
        let start = start.clone();
        tokio::task::spawn_blocking(move || start.run())
    });
    let all: Vec<_> = join_all(starts).await.into_iter().map(Result::unwrap).collect();
    all[0].operator().add_tenant("acme").await;
    for (number, control) in all.iter().enumerate() {
        control.operator().add_server(&format!("acme/s{number}")).await;
    }
    for control in &all {
        assert_eq!(control.operator().get("/v1/servers").await["items"].as_array().unwrap().len(), 4);
    }
}

async fn a_restart_forgets_nothing(on: On) {
    let start = Start::new(on);
    let control = start.run();
    control.operator().add_tenant("acme").await;
    let made = control.operator().add_server("acme/x").await;
    control.kill();
    let control = start.run();
    assert_eq!(control.operator().get("/v1/servers/acme%2Fx").await, made);
}

#[tokio::test]
async fn a_superuser_is_refused() {
    let mut start = Start::new(On::Postgres);
    start.database = postgres::superuser_url(&start.database);
    let output = start.command().stdout(Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("row security"));
}

#[tokio::test]
async fn it_is_ready_in_a_second_and_shows_its_api() {
    let start = Start::new(On::Sqlite);
    let began = Instant::now();
    let control = start.run();
    // A figure for the log: other work on the machine may slow it.
    eprintln!("ready after {:?}", began.elapsed());
    let anyone = control.anyone();
    let document = anyone.get("/openapi.json").await;
    assert!(document["paths"]["/v1/servers"]["post"].is_object());
    let page = anyone.ask("GET", "/docs", &[], None).await;
    assert_eq!(page.status, StatusCode::OK);
}

/// `dormouse-control openapi > control/server/openapi.json` writes it anew.
#[test]
fn the_committed_document_is_the_one_that_is_served() {
    let committed = include_str!("../../openapi.json");
    let now = dormouse_control::http::document().to_pretty_json().unwrap();
    assert!(
        committed.trim() == now.trim(),
        "openapi.json is old: write it anew with `dormouse-control openapi`"
    );
}
