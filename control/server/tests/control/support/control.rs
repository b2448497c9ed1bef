//! The real program, and asking it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use dormouse_api::remote::{Remote, Reply};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::{On, Owned, postgres};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dormouse-control");

/// What outlives a restart of the program.
#[derive(Clone)]
pub struct Start {
    pub database: String,
    pub keys: PathBuf,
    pub region: String,
    pub arguments: Vec<String>,
    /// A place of `failpoint.rs`.
    pub die_at: Option<String>,
    _folder: Arc<tempfile::TempDir>,
}

impl Start {
    pub fn new(on: On) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let database = match on {
            On::Sqlite => folder.path().join("region.db").to_str().unwrap().to_owned(),
            On::Postgres => postgres::database(),
        };
        Self::of(database, folder)
    }

    /// On a cluster that the test may kill.
    pub fn on_cluster(cluster: &postgres::Cluster) -> Self {
        Self::of(cluster.database("region"), Arc::new(tempfile::tempdir().unwrap()))
    }

    fn of(database: String, folder: Arc<tempfile::TempDir>) -> Self {
        Self {
            database,
            keys: folder.path().join("keys"),
            region: "fra".to_owned(),
            arguments: Vec::new(),
            die_at: None,
            _folder: folder,
        }
    }

    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|text| (*text).to_owned()));
        self
    }

    #[must_use]
    pub fn dies_at(mut self, place: &str) -> Self {
        self.die_at = Some(place.to_owned());
        self
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--listen", "127.0.0.1:0", "--rate", "100000", "--region", &self.region]);
        command.args(["--database", &self.database]).arg("--keys").arg(&self.keys).args(&self.arguments);
        command.env("DORMOUSE_LOG", "warn");
        if let Some(place) = &self.die_at {
            command.env("DORMOUSE_DIE_AT", place);
        }
        command
    }

    /// Started, and listening.
    pub fn run(&self) -> Control {
        self.try_run().expect("the program did not start")
    }

    /// How it ended, if it ended before it listened.
    pub fn try_run(&self) -> Result<Control, std::process::ExitStatus> {
        let mut child = Owned(self.command().stdout(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        match line.trim().strip_prefix("listening on ") {
            Some(url) => Ok(Control { url: url.to_owned(), child, start: self.clone() }),
            None => Err(child.0.wait().unwrap()),
        }
    }

    /// As it would be started on a backup of its database that is made now; nothing may run on it.
    pub fn backup(&self) -> Self {
        let database = match self.database.rsplit_once('/') {
            Some(_) if self.database.starts_with("postgres://") => postgres::copy(&self.database),
            _ => {
                let copy = format!("{}.backup", self.database);
                // What SIGKILL left in the write-ahead log belongs to it.
                for ending in ["", "-wal"] {
                    let from = format!("{}{ending}", self.database);
                    if Path::new(&from).exists() {
                        std::fs::copy(from, format!("{copy}{ending}")).unwrap();
                    }
                }
                copy
            }
        };
        Self { database, ..self.clone() }
    }

    pub fn token(&self, arguments: &[&str]) -> String {
        token(&self.keys, &self.region, arguments)
    }
}

pub fn token(keys: &Path, region: &str, arguments: &[&str]) -> String {
    let output = Command::new(PROGRAM)
        .args(["token", "--for", "1h", "--region", region, "--keys"])
        .arg(keys)
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub struct Control {
    pub url: String,
    child: Owned,
    pub start: Start,
}

impl Control {
    /// Nobody.
    pub fn anyone(&self) -> Asks {
        Asks(Remote::new(&self.url, None).unwrap())
    }

    pub fn operator(&self) -> Asks {
        self.who(&["--role", "operator", "--subject", "anna"])
    }

    pub fn tenant(&self, tenant: &str) -> Asks {
        self.who(&["--role", "tenant", "--tenant", tenant, "--subject", &format!("{tenant}-console")])
    }

    pub fn node(&self, node: &str) -> Asks {
        self.who(&["--role", "node", "--node", node, "--subject", node])
    }

    pub fn service(&self, name: &str) -> Asks {
        self.who(&["--role", "service", "--subject", name])
    }

    pub fn who(&self, arguments: &[&str]) -> Asks {
        Asks(Remote::new(&self.url, None).unwrap().with_token(self.start.token(arguments)))
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill();
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.0.try_wait().unwrap()
    }

    /// Waits for it to end by itself.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        self.child.0.wait().unwrap()
    }
}

/// Somebody with a token.
pub struct Asks(pub Remote);

impl Asks {
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Reply {
        self.0.ask(Method::from_bytes(method.as_bytes()).unwrap(), path, headers, body).await.unwrap()
    }

    pub async fn try_ask(&self, method: &str, path: &str, body: Option<&Value>) -> Option<Reply> {
        self.0.ask(Method::from_bytes(method.as_bytes()).unwrap(), path, &[], body).await.ok()
    }

    pub async fn get(&self, path: &str) -> Value {
        body_of(&self.ask("GET", path, &[], None).await, StatusCode::OK)
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        let reply = self.ask("POST", path, &[], Some(&body)).await;
        assert!(reply.status.is_success(), "POST {path}: {} {}", reply.status, text(&reply));
        if reply.body.is_empty() { Value::Null } else { serde_json::from_slice(&reply.body).unwrap() }
    }

    pub async fn patch(&self, path: &str, body: Value) -> Value {
        body_of(&self.ask("PATCH", path, &[], Some(&body)).await, StatusCode::OK)
    }

    /// The problem that a request ends with.
    pub async fn problem(&self, method: &str, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let reply = self.ask(method, path, &[], body.as_ref()).await;
        assert!(!reply.status.is_success(), "{method} {path}: {} {}", reply.status, text(&reply));
        (reply.status, serde_json::from_slice(&reply.body).unwrap())
    }

    pub async fn add_tenant(&self, tenant: &str) {
        self.post("/v1/tenants", json!({ "id": tenant })).await;
    }

    pub async fn add_server(&self, name: &str) -> Value {
        self.post("/v1/servers", json!({ "name": name, "profile": "minecraft-java" })).await
    }
}

pub fn text(reply: &Reply) -> String {
    String::from_utf8_lossy(&reply.body).into_owned()
}

pub fn body_of(reply: &Reply, status: StatusCode) -> Value {
    assert_eq!(reply.status, status, "{}", text(reply));
    serde_json::from_slice(&reply.body).unwrap()
}
