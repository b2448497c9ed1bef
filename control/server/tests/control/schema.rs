//! The API is what its document says, and nothing that is sent to it breaks it: schemathesis makes requests up from the
//! document, good ones and bad ones.

use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::support::{On, Start, on_both};

on_both!(nothing_fails_and_every_answer_is_in_the_document);

/// Where `scripts/setup control` puts it.
fn program() -> PathBuf {
    let cache = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    cache.join(".cache/dormouse/schemathesis/bin/schemathesis")
}

/// What is no failure of the server: no 5xx, no status, type, header or body that the document doesn't name.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance";

async fn nothing_fails_and_every_answer_is_in_the_document(on: On) {
    if !program().exists() {
        println!("SKIP schemathesis is missing: scripts/setup control installs it");
        return;
    }
    let control = Start::new(on).run();
    crate::nodes::with_node(&control).await;
    control.operator().post("/v1/erasures", json!({ "subject": "person-1" })).await;
    // The long way is for everybody.
    let long = std::env::var("DORMOUSE_EXAMPLES").ok();
    let examples = long.clone().unwrap_or_else(|| "3".to_owned());
    let operator = &["--role", "operator"][..];
    let others = [&["--role", "tenant", "--tenant", "acme"][..], &["--role", "node", "--node", "fra-1"]];
    for role in std::iter::once(operator).chain(others.into_iter().filter(|_| long.is_some())) {
        let token = control.start.token(role);
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(program());
        command.current_dir(folder.path());
        command.args(["run", &format!("{}/openapi.json", control.url), "--checks", CHECKS]);
        command.args(["--max-examples", &examples, "--phases", "examples,coverage,fuzzing"]);
        command.args(["--header", &format!("Authorization: Bearer {token}"), "--continue-on-failure"]);
        command.args(["--suppress-health-check", "all", "--warnings", "off", "--generation-deterministic"]);
        // It goes on for ever.
        command.args(["--exclude-path", "/v1/nodes/{node}/commands"]);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{role:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    }
}
