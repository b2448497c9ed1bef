//! The real client against the real server, on a real socket, with an operator that plays its part.

use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use dormouse_api::Code;
use dormouse_api::client::{Client, ClientError, Unreachable};
use dormouse_api::command::{ModeRequest, Phases};
use dormouse_api::event::{EventFilter, EventKind};
use dormouse_api::preflight::{Check, CheckResult};
use dormouse_api::status::{Guard, HandedBack, Kept, NodeStatus, Stage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const NAME: &str = "acme/survival 1";

#[derive(Default)]
struct Script {
    /// What was asked, in order.
    asked: Mutex<Vec<String>>,
    live: Mutex<Option<mpsc::Sender<Event>>>,
}

impl Script {
    fn asked(&self, what: impl std::fmt::Debug) {
        self.asked.lock().unwrap().push(format!("{what:?}"));
    }

    fn server(&self, name: &str, what: impl std::fmt::Debug) -> Answer<ServerStatus> {
        self.asked((name, what));
        if name != NAME {
            return Err(Problem::no_such_server(name));
        }
        Ok(ServerStatus {
            name: name.to_owned(),
            profile: "luanti".into(),
            mode: Mode::Full,
            stage: Stage::Dozing,
            since_at_ms: 1,
            flows: 0,
            resident_bytes: 1,
            size_bytes: 2,
            last_player_at_ms: None,
            kept: Some(Kept { owner: "anna".into(), reason: "LAN party".into(), until_at_ms: 3 }),
            note: None,
            pings_answered: 0,
            scans_refused: 0,
            deep_wake: None,
        })
    }

    fn explained(&self, target: &Target, what: impl std::fmt::Debug) -> Explain {
        self.asked((target, what));
        Explain { name: "x".into(), profile: "luanti".into(), settings: vec![] }
    }
}

fn event(kind: EventKind) -> Event {
    Event {
        at_ms: 1,
        kind,
        server: Some(NAME.into()),
        profile: Some("luanti".into()),
        from: Some("[2001:db8::1]:53122".into()),
        class: None,
        phases: None,
        detail: None,
    }
}

impl Operator for Script {
    async fn status(&self, selector: Selector) -> Answer<Status> {
        let server = self.server(NAME, &selector)?;
        let node = NodeStatus {
            name: "fra-1".into(),
            now_at_ms: 9,
            awake: 0,
            dozing: 1,
            deep: 0,
            waking: 0,
            kept: 0,
            servers_bytes: 1,
            headroom_bytes: 2,
            short_bytes: 0,
            deep_writes: None,
            total_bytes: 3,
            handed_back: HandedBack { bytes: 4, estimated: true },
            guard: Guard::Ok,
            off: false,
        };
        Ok(Status { node, servers: vec![server] })
    }

    async fn why(&self, server: String) -> Answer<Why> {
        Err(Problem::internal(format!("{server}: the operator lost its notes")))
    }

    async fn wake(&self, server: String, request: WakeRequest) -> Answer<WakeResult> {
        self.server(&server, request)?;
        Ok(WakeResult { server, from_stage: Stage::Deep, phases: Phases::default() })
    }

    async fn sleep(&self, server: String, request: SleepRequest) -> Answer<ServerStatus> {
        self.server(&server, request)?;
        Err(Problem::refused("2 players"))
    }

    async fn keep(&self, server: String, request: KeepRequest) -> Answer<ServerStatus> {
        self.server(&server, request)
    }

    async fn release(&self, server: String) -> Answer<ServerStatus> {
        self.server(&server, "release")
    }

    async fn set_mode(&self, server: String, mode: Mode) -> Answer<ServerStatus> {
        self.server(&server, mode)
    }

    async fn events(&self, follow: bool) -> Answer<mpsc::Receiver<Event>> {
        let (sender, receiver) = mpsc::channel(8);
        for kind in [EventKind::Doze, EventKind::Refused, EventKind::Wake] {
            sender.send(event(kind)).await.unwrap();
        }
        *self.live.lock().unwrap() = follow.then_some(sender);
        Ok(receiver)
    }

    async fn profiles(&self) -> Answer<Vec<ProfileSummary>> {
        Ok(vec![])
    }

    async fn explain(&self, target: Target) -> Answer<Explain> {
        Ok(self.explained(&target, "explain"))
    }

    async fn set(&self, target: Target, request: SetRequest) -> Answer<Explain> {
        if request.key != "doze_after" {
            return Err(Problem::bad_field(request.key, "no such limit"));
        }
        Ok(self.explained(&target, request))
    }

    async fn unset(&self, target: Target, key: String) -> Answer<Explain> {
        Ok(self.explained(&target, key))
    }

    async fn preflight(&self) -> Answer<Preflight> {
        let check =
            Check { name: "swap".into(), result: CheckResult::Warn, found: "none".into(), remedy: None };
        Ok(Preflight { checks: vec![check], disk: None })
    }

    async fn savings(&self, request: SavingsRequest) -> Answer<Savings> {
        self.asked(&request);
        Ok(Savings {
            node: "fra-1".into(),
            since_at_ms: 1,
            until_at_ms: 2,
            covered_hours: 0.5,
            headroom_gib_hours: 0.0,
            servers: vec![],
            days: vec![],
        })
    }

    async fn adopt(&self, request: AdoptRequest) -> Answer<AdoptResult> {
        self.asked(&request);
        Ok(AdoptResult { file: "f".into(), text: "t".into(), servers: vec![], notes: vec![] })
    }
}

/// A served socket; everything goes with it.
struct Served {
    script: Arc<Script>,
    client: Client,
    task: tokio::task::JoinHandle<io::Result<()>>,
    _socket: Socket,
    _folder: tempfile::TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn served() -> Served {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run/dormouse.sock");
    let (listener, socket) = listen(&path).unwrap();
    let script = Arc::new(Script::default());
    let task = tokio::spawn(serve(listener, Arc::clone(&script)));
    Served { script, client: Client::new(path), task, _socket: socket, _folder: folder }
}

/// What a script with a socket and no client would get.
async fn raw(served: &Served, request: &str) -> String {
    let mut stream = tokio::net::UnixStream::connect(served.client.socket()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn post(served: &Served, path: &str, body: &str) -> String {
    let length = body.len();
    let head = "HTTP/1.1\r\nhost: x\r\nconnection: close";
    raw(served, &format!("POST {path} {head}\r\ncontent-length: {length}\r\n\r\n{body}")).await
}

fn problem<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Problem {
    match result.unwrap_err() {
        ClientError::Problem(problem) => problem,
        other => panic!("not a problem: {other}"),
    }
}

#[tokio::test]
async fn every_request_reaches_the_operator_with_its_name() {
    let served = served();
    let client = &served.client;
    let selector = Selector { servers: vec![NAME.into(), "b&c".into()], profile: Some("luanti".into()) };
    assert_eq!(client.status(&selector).await.unwrap().servers[0].name, NAME);
    let keep = KeepRequest { for_ms: 5, reason: "LAN".into(), owner: "anna".into() };
    client.wake(NAME, &WakeRequest { keep: Some(keep.clone()) }).await.unwrap();
    client.keep(NAME, &keep).await.unwrap();
    client.release(NAME).await.unwrap();
    client.set_mode(NAME, ModeRequest { mode: Mode::Doze }).await.unwrap();
    let (one, many) = (Target::Server(NAME.into()), Target::Profile("luanti".into()));
    client.explain(&one).await.unwrap();
    let set = SetRequest { key: "doze_after".into(), value: "5m".into(), for_ms: 7 };
    client.set(&many, &set).await.unwrap();
    client.unset(&one, "doze_after").await.unwrap();
    client.adopt(&AdoptRequest { select: "cgroup:/games/*".into(), profile: None }).await.unwrap();
    assert!(client.profiles().await.unwrap().is_empty());
    assert_eq!(client.preflight().await.unwrap().checks[0].name, "swap");
    let servers = Selector { servers: vec!["b&c".into()], profile: None };
    let period = SavingsRequest { servers, since_at_ms: Some(5), until_at_ms: None };
    assert_eq!(client.savings(&period).await.unwrap().node, "fra-1");
    let asked = served.script.asked.lock().unwrap().join("\n");
    assert_eq!(
        asked,
        r#"("acme/survival 1", Selector { servers: ["acme/survival 1", "b&c"], profile: Some("luanti") })
("acme/survival 1", WakeRequest { keep: Some(KeepRequest { for_ms: 5, reason: "LAN", owner: "anna" }) })
("acme/survival 1", KeepRequest { for_ms: 5, reason: "LAN", owner: "anna" })
("acme/survival 1", "release")
("acme/survival 1", Doze)
(Server("acme/survival 1"), "explain")
(Profile("luanti"), SetRequest { key: "doze_after", value: "5m", for_ms: 7 })
(Server("acme/survival 1"), "doze_after")
AdoptRequest { select: "cgroup:/games/*", profile: None }
SavingsRequest { servers: Selector { servers: ["b&c"], profile: None }, since_at_ms: Some(5), until_at_ms: None }"#
    );
}

#[tokio::test]
async fn problems_arrive_as_they_were_sent() {
    let served = served();
    let refused = problem(served.client.sleep(NAME, SleepRequest { deep: true }).await);
    assert_eq!((refused.code, refused.status, refused.detail.as_str()), (Code::Refused, 409, "2 players"));
    let missing = problem(served.client.release("nobody").await);
    assert_eq!(missing, Problem::no_such_server("nobody"));
    assert_eq!(problem(served.client.why(NAME).await).code, Code::Internal);
    let set = SetRequest { key: "bogus".into(), value: "1".into(), for_ms: 1 };
    let bad = problem(served.client.set(&Target::Profile("luanti".into()), &set).await);
    assert_eq!((bad.code, bad.field.as_deref()), (Code::BadField, Some("bogus")));
}

#[tokio::test]
async fn what_is_not_known_is_refused_by_its_name() {
    let served = served();
    let keep = "/v1/servers/acme%2Fsurvival%201/keep";
    let unknown = post(&served, keep, r#"{"for_ms":1,"reason":"r","owner":"o","forever":true}"#).await;
    assert!(unknown.starts_with("HTTP/1.1 422"), "{unknown}");
    assert!(unknown.contains("content-type: application/problem+json"), "{unknown}");
    assert!(unknown.contains(r#""field":"forever""#), "{unknown}");
    let nested =
        post(&served, "/v1/servers/x/wake", r#"{"keep":{"for_ms":"long","reason":"r","owner":"o"}}"#).await;
    assert!(nested.contains(r#""field":"keep.for_ms""#), "{nested}");
    let no_json = post(&served, keep, "for_ms=1").await;
    assert!(no_json.starts_with("HTTP/1.1 422"), "{no_json}");
    let two = post(&served, keep, r#"{"for_ms":1,"reason":"r","owner":"o"} {}"#).await;
    assert!(two.starts_with("HTTP/1.1 422"), "{two}");
    // No body is an empty object.
    let empty = post(&served, "/v1/servers/acme%2Fsurvival%201/wake", "").await;
    assert!(empty.starts_with("HTTP/1.1 200"), "{empty}");

    for (path, field) in [
        ("/v1/status?node=fra-1", "node"),
        ("/v1/status?profile=a&profile=b", "profile"),
        ("/v1/events?type=knock", "type"),
        ("/v1/events?follow=yes", "follow"),
        ("/v1/events?since=1", "since"),
    ] {
        let answer = raw(&served, &get(path)).await;
        assert!(answer.starts_with("HTTP/1.1 422"), "{path}: {answer}");
        assert!(answer.contains(&format!(r#""field":"{field}""#)), "{path}: {answer}");
    }
    let nowhere = raw(&served, &get("/v2/status")).await;
    assert!(nowhere.starts_with("HTTP/1.1 404") && nowhere.contains(r#""code":"not_found""#), "{nowhere}");
    let method = post(&served, "/v1/status", "").await;
    assert!(method.starts_with("HTTP/1.1 405") && method.contains("method_not_allowed"), "{method}");
    let name = raw(&served, &get("/v1/servers/%ff/why")).await;
    assert!(name.contains(r#""code":"bad_field""#), "{name}");
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn a_body_has_a_limit() {
    let served = served();
    let body = format!(r#"{{"select":"{}"}}"#, "x".repeat(64 << 10));
    let large = post(&served, "/v1/adopt", &body).await;
    assert!(large.starts_with("HTTP/1.1 413") && large.contains(r#""code":"too_large""#), "{large}");
    let fits = format!(r#"{{"select":"{}"}}"#, "x".repeat((64 << 10) - 13));
    assert_eq!(fits.len(), 64 << 10);
    let fits = post(&served, "/v1/adopt", &fits).await;
    assert!(fits.starts_with("HTTP/1.1 200"), "{fits}");
}

#[tokio::test]
async fn events_are_filtered_and_followed_until_the_operator_ends() {
    let served = served();
    let filter = EventFilter { kinds: vec![EventKind::Wake, EventKind::Crash], ..EventFilter::default() };
    let mut past = served.client.events(&filter).await.unwrap();
    assert_eq!(past.next().await.unwrap(), Some(event(EventKind::Wake)));
    assert_eq!(past.next().await.unwrap(), None);

    let mut live = served.client.events(&EventFilter { follow: true, ..filter }).await.unwrap();
    assert_eq!(live.next().await.unwrap(), Some(event(EventKind::Wake)));
    let sender = served.script.live.lock().unwrap().take().unwrap();
    sender.send(event(EventKind::Doze)).await.unwrap();
    sender.send(event(EventKind::Crash)).await.unwrap();
    assert_eq!(live.next().await.unwrap(), Some(event(EventKind::Crash)));
    drop(sender);
    assert_eq!(live.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_follower_that_leaves_is_noticed() {
    let served = served();
    let filter = EventFilter { follow: true, ..EventFilter::default() };
    let live = served.client.events(&filter).await.unwrap();
    let sender = served.script.live.lock().unwrap().take().unwrap();
    drop(live);
    sender.closed().await;
}

#[tokio::test]
async fn the_socket_is_for_root_only_and_goes_with_its_owner() {
    let served = served();
    let path = served.client.socket().to_owned();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    let taken = listen(&path).unwrap_err();
    assert!(matches!(taken, ListenError::Taken { .. }), "{taken}");
    let unreachable = |client: Client| async move {
        match client.profiles().await.unwrap_err() {
            ClientError::Unreachable { why, .. } => why,
            other => panic!("{other}"),
        }
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(listen(&file).unwrap_err(), ListenError::NotASocket { .. }));
    // A dead socket: its listener is gone, its name is not.
    let dead = folder.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    assert_eq!(unreachable(Client::new(&dead)).await, Unreachable::NotRunning);
    let (listener, socket) = listen(&dead).unwrap();
    drop((listener, socket));
    assert!(!dead.exists());
    assert_eq!(unreachable(Client::new(&dead)).await, Unreachable::NoSocket);
}
