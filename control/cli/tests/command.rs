//! The built command against a scripted daemon: what it asks, what it prints, how it ends.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use dormouse_api::Problem;
use dormouse_api::command::{Phases, WakeResult};
use dormouse_api::event::{Event, EventKind};
use dormouse_api::preflight::{Check, CheckResult, Preflight};
use dormouse_api::profile::{Explain, Layer, LayerValue, Setting};
use dormouse_api::savings::{DaySavings, Paper, Savings, ServerSavings, Sums};
use dormouse_api::status::{Guard, HandedBack, Kept, Mode, NodeStatus, ServerStatus, Stage, Status};
use support::{Daemon, code, dormouse, stderr, stdout};

const NOW: u64 = 1_795_000_000_000; // 2026-11-18 11:06:40 UTC

fn ok(answer: &impl serde::Serialize) -> (u16, String) {
    (200, serde_json::to_string(answer).unwrap())
}

fn problem(problem: &Problem) -> (u16, String) {
    (problem.status, serde_json::to_string(problem).unwrap())
}

fn server(name: &str) -> ServerStatus {
    ServerStatus {
        name: name.into(),
        profile: "luanti".into(),
        mode: Mode::Full,
        stage: Stage::Dozing,
        since_at_ms: NOW - 60_000,
        flows: 0,
        resident_bytes: 58 << 20,
        size_bytes: 58 << 20,
        last_player_at_ms: None,
        kept: None,
        note: Some("\x1b]0;owned\x07".into()),
        pings_answered: 1,
        scans_refused: 0,
        deep_wake: None,
    }
}

fn node() -> NodeStatus {
    NodeStatus {
        name: "fra-1".into(),
        now_at_ms: NOW,
        awake: 0,
        dozing: 2,
        deep: 0,
        waking: 0,
        kept: 0,
        servers_bytes: 116 << 20,
        headroom_bytes: 0,
        short_bytes: 0,
        deep_writes: None,
        total_bytes: 4 << 30,
        handed_back: HandedBack { bytes: 0, estimated: false },
        guard: Guard::Ok,
        off: false,
    }
}

fn event(server: &str) -> Event {
    Event {
        at_ms: NOW,
        kind: EventKind::Crash,
        server: Some(server.into()),
        profile: None,
        from: None,
        class: None,
        phases: None,
        detail: None,
    }
}

fn script(question: &str) -> (u16, String) {
    match question {
        "GET /v1/status" | "GET /v1/status?profile=luanti" => {
            ok(&Status { node: node(), servers: vec![server("a/b"), server("busy")] })
        }
        "GET /v1/status?profile=none" => ok(&Status { node: node(), servers: vec![] }),
        "POST /v1/servers/a%2Fb/wake" => {
            let phases = Phases { thawed_ns: Some(400_000), ..Phases::default() };
            ok(&WakeResult { server: "a/b".into(), from_stage: Stage::Deep, phases })
        }
        "POST /v1/servers/a%2Fb/sleep" | "PUT /v1/servers/a%2Fb/mode" => ok(&server("a/b")),
        "POST /v1/servers/a%2Fb/keep" => {
            let kept = Kept { owner: "anna".into(), reason: "LAN party".into(), until_at_ms: NOW };
            ok(&ServerStatus { kept: Some(kept), ..server("a/b") })
        }
        "POST /v1/servers/busy/sleep" | "PUT /v1/servers/busy/mode" => {
            problem(&Problem::refused("2 players").with_remedy("wait until they leave"))
        }
        "POST /v1/servers/nobody/sleep" => problem(&Problem::no_such_server("nobody")),
        "PATCH /v1/profiles/luanti" => problem(&Problem::bad_field("doze_after", "\"soon\" is no duration")),
        "GET /v1/servers/a%2Fb/limits"
        | "PATCH /v1/servers/a%2Fb/limits"
        | "DELETE /v1/servers/a%2Fb/limits/floor" => {
            let setting = |key: &str, value: &str| Setting {
                key: key.into(),
                value: value.into(),
                won: Layer::BuiltIn,
                layers: vec![LayerValue {
                    layer: Layer::BuiltIn,
                    value: value.into(),
                    file: None,
                    until_at_ms: None,
                }],
            };
            let settings = vec![setting("doze_after", "5m"), setting("floor", "deep")];
            ok(&Explain { name: "a/b".into(), profile: "luanti".into(), settings })
        }
        "GET /v1/events?type=wake&type=crash&follow=true" | "GET /v1/events" => {
            let lines = ["a/b", "c"].map(|name| serde_json::to_string(&event(name)).unwrap() + "\n");
            (200, lines.concat())
        }
        "GET /v1/preflight" => ok(&preflight()),
        "GET /v1/savings?since_at_ms=1794136000000&until_at_ms=1795000000000" => ok(&savings()),
        // Somebody else than the daemon: no problem in the body.
        _ => (404, "what?".to_owned()),
    }
}

fn savings() -> Savings {
    let paper = Paper { deep_hours: 100.0, handed_back_gib_hours: 80.0, ..Paper::default() };
    let sums = Sums { awake_hours: 240.0, size_gib_hours: 240.0, paper, ..Sums::default() };
    Savings {
        node: "fra-1".into(),
        since_at_ms: NOW - 864_000_000,
        until_at_ms: NOW,
        covered_hours: 240.0,
        headroom_gib_hours: 0.0,
        servers: vec![ServerSavings { name: "a/b".into(), profile: "luanti".into(), sums }],
        days: vec![DaySavings { start_at_ms: NOW - 864_000_000, sums }],
    }
}

fn preflight() -> Preflight {
    let check = |name: &str, result| Check { name: name.into(), result, found: "x".into(), remedy: None };
    Preflight { checks: vec![check("kernel", CheckResult::Ok), check("bpf", CheckResult::Fail)], disk: None }
}

#[test]
fn status_is_a_table_or_json() {
    let daemon = Daemon::start(script);
    let table = daemon.run(&["status"]);
    assert_eq!(code(&table), 0, "{}", stderr(&table));
    // What a player chose to be called doesn't steer the terminal.
    assert!(
        stdout(&table).contains("dozing  1m   0      58 / 58 MiB    never        \u{fffd}]0;owned\u{fffd}")
    );
    let json = daemon.run(&["-o", "json", "status", "-p", "luanti"]);
    let status: Status = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(status.servers.len(), 2);
    assert_eq!(daemon.asked(), ["GET /v1/status", "GET /v1/status?profile=luanti"]);
}

#[test]
fn the_socket_may_come_from_the_environment() {
    let daemon = Daemon::start(script);
    let output = dormouse().env("DORMOUSE_SOCKET", &daemon.socket).arg("status").output().unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}

#[test]
fn verbs_ask_for_one_server_after_the_other() {
    let daemon = Daemon::start(script);
    let woken = daemon.run(&["wake", "a/b", "--keep", "2h"]);
    assert_eq!((code(&woken), stdout(&woken)), (0, "a/b: awake (from deep)  thawed +0.4 ms\n"));
    let slept = daemon.run(&["sleep", "a/b", "--deep"]);
    assert_eq!((code(&slept), stdout(&slept)), (0, "a/b: dozing, mode full\n"));
    let kept = daemon.run(&["keep", "a/b", "--for", "6h", "--reason", "LAN party"]);
    assert_eq!(code(&kept), 0);
    assert!(stdout(&kept).contains("kept by anna until "), "{}", stdout(&kept));
    assert_eq!(code(&daemon.run(&["enable", "a/b"])), 0);
    assert_eq!(code(&daemon.run(&["enable", "a/b", "--mode", "doze"])), 0);
    assert_eq!(code(&daemon.run(&["disable", "a/b"])), 0);
    assert_eq!(
        daemon.asked(),
        [
            r#"POST /v1/servers/a%2Fb/wake {"keep":{"for_ms":7200000,"reason":"dormouse wake --keep","owner":"anna"}}"#,
            r#"POST /v1/servers/a%2Fb/sleep {"deep":true}"#,
            r#"POST /v1/servers/a%2Fb/keep {"for_ms":21600000,"reason":"LAN party","owner":"anna"}"#,
            r#"PUT /v1/servers/a%2Fb/mode {"mode":"full"}"#,
            r#"PUT /v1/servers/a%2Fb/mode {"mode":"doze"}"#,
            r#"PUT /v1/servers/a%2Fb/mode {"mode":"observe"}"#,
        ]
    );
}

#[test]
fn a_refusal_is_3_and_does_not_stop_the_others() {
    let daemon = Daemon::start(script);
    let all = daemon.run(&["sleep", "--all"]);
    assert_eq!((code(&all), stdout(&all)), (3, "a/b: dozing, mode full\n"));
    assert_eq!(stderr(&all), "refused: busy: 2 players\nwait until they leave\n");
    assert_eq!(daemon.asked().len(), 3);
    let worse = daemon.run(&["sleep", "busy", "nobody", "a/b"]);
    assert_eq!((code(&worse), stdout(&worse)), (1, "a/b: dozing, mode full\n"));
    let none = daemon.run(&["sleep", "-p", "none"]);
    assert_eq!((code(&none), stderr(&none)), (1, "dormouse: no such server has the profile none\n"));
}

#[test]
fn savings_are_a_table_json_csv_or_a_page() {
    let daemon = Daemon::start(script);
    let run = |more: &[&str]| {
        let period = ["savings", "--since", "2026-11-08T11:06:40Z", "--until", "2026-11-18T11:06:40Z"];
        let output = daemon.run(&[&period, more].concat());
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        stdout(&output).to_owned()
    };
    assert!(run(&[]).contains("Density      1.00 servers where one stood"));
    assert!(
        run(&["--estimate", "--margin", "58"]).contains("Margin       58 % becomes 72 % at this density")
    );
    let json: serde_json::Value = serde_json::from_str(&run(&["-o", "json", "--estimate"])).unwrap();
    assert_eq!(
        (json["total"]["deep_hours"].as_f64(), json["worth"]["density"].as_f64()),
        (Some(100.0), Some(1.5))
    );
    assert!(run(&["-o", "csv"]).ends_with("a/b,luanti,240.0000,0.0000,0.0000,0.0000,240.0000,0.0000,0\r\n"));
    assert!(run(&["-o", "html"]).starts_with("<!doctype html>"));
}

#[test]
fn usage_is_2() {
    let daemon = Daemon::start(script);
    for words in [
        &["sleep"][..],
        &["sleep", "a/b", "--all"],
        &["keep", "a/b", "--for", "0s", "--reason", "x"],
        &["keep", "a/b", "--for", "6h"],
        &["events", "--type", "knock"],
        &["status", "-o", "csv"],
        &["savings", "--since", "tomorrow"],
        &["savings", "--margin", "100"],
        &["profile", "set", "a/b", "doze_after", "--for", "1h"],
        &["profile", "set", "a/b", "doze_after", "5m"],
        &["profile", "unset", "a/b"],
        &["profile", "get"],
        &["profile", "get", "-p", "luanti", "a", "b"],
        &["nonsense"],
    ] {
        let output = daemon.run(words);
        assert_eq!(code(&output), 2, "{words:?}: {}", stderr(&output));
        assert!(!stderr(&output).is_empty());
    }
    assert!(daemon.asked().is_empty());
    // The daemon knows the values: what it cannot read is a usage error as well.
    let bad = daemon.run(&["profile", "set", "-p", "luanti", "doze_after", "soon", "--for", "1h"]);
    assert_eq!((code(&bad), stderr(&bad)), (2, "dormouse: \"soon\" is no duration (field doze_after)\n"));
}

#[test]
fn thresholds_are_read_and_overridden() {
    let daemon = Daemon::start(script);
    let value = daemon.run(&["profile", "get", "a/b", "floor"]);
    assert_eq!((code(&value), stdout(&value)), (0, "deep\n"));
    let unknown = daemon.run(&["profile", "get", "a/b", "ceiling"]);
    assert_eq!(
        (code(&unknown), stderr(&unknown)),
        (1, "dormouse: a/b has no ceiling; there are: doze_after, floor\n")
    );
    let set = daemon.run(&["profile", "set", "a/b", "doze_after", "5m", "--for", "90m"]);
    assert_eq!(code(&set), 0, "{}", stderr(&set));
    assert!(!stdout(&set).contains("floor"), "only what was changed: {}", stdout(&set));
    let unset = daemon.run(&["profile", "unset", "a/b", "floor"]);
    assert_eq!(
        (code(&unset), stdout(&unset)),
        (0, "a/b  profile luanti\nKEY      LAYER     VALUE  WHERE\nfloor  * built-in  deep\n")
    );
    assert_eq!(
        daemon.asked()[2..],
        [
            r#"PATCH /v1/servers/a%2Fb/limits {"key":"doze_after","value":"5m","for_ms":5400000}"#,
            "DELETE /v1/servers/a%2Fb/limits/floor"
        ]
    );
}

#[test]
fn events_are_lines() {
    let daemon = Daemon::start(script);
    let table = daemon.run(&["events", "-w", "--type", "wake,crash"]);
    assert_eq!(code(&table), 0, "{}", stderr(&table));
    assert_eq!(stdout(&table).lines().count(), 3);
    let json = daemon.run(&["events", "-o", "json"]);
    let events: Vec<Event> = stdout(&json).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events, [event("a/b"), event("c")]);
}

#[test]
fn a_watched_status_ends_when_its_reader_does() {
    let daemon = Daemon::start(script);
    let mut command = dormouse();
    command.arg("--socket").arg(&daemon.socket).args(["status", "-w"]).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn nobody_there_is_4_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("x.sock");
    let run = |words: &[&str]| dormouse().arg("--socket").arg(&socket).args(words).output().unwrap();
    let missing = run(&["status"]);
    assert_eq!(code(&missing), 4);
    assert!(stderr(&missing).contains("there is no such socket\nstart it"), "{}", stderr(&missing));
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let dead = run(&["sleep", "a", "b"]);
    assert_eq!(code(&dead), 4);
    assert_eq!(stderr(&dead).matches("the daemon is not running").count(), 1, "{}", stderr(&dead));
    let stranger = Installed::new();
    fs::set_permissions(stranger.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let shut = stranger.folder.path().join("none.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&shut).unwrap();
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o000)).unwrap();
    let denied = stranger.run_as_stranger(&["status"]);
    assert_eq!(code(&denied), 4);
    assert!(
        stderr(&denied).contains("no permission\nthe socket belongs to root: use sudo"),
        "{}",
        stderr(&denied)
    );
    let long = format!("/{}.sock", "x".repeat(200));
    let invalid = dormouse().args(["--socket", &long, "status"]).output().unwrap();
    assert_eq!(code(&invalid), 4);
    assert!(stderr(&invalid).contains("SUN_LEN"), "{}", stderr(&invalid));
    // Somebody answers, but not the daemon: that is a failure, not an absence.
    let daemon = Daemon::start(script);
    let strange = daemon.run(&["why", "a/b"]);
    assert_eq!(code(&strange), 1);
    assert!(stderr(&strange).contains("status 404"), "{}", stderr(&strange));
}

/// A copy of the command with companions of our own beside it.
struct Installed {
    folder: tempfile::TempDir,
}

impl Installed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::copy(env!("CARGO_BIN_EXE_dormouse"), folder.path().join("dormouse")).unwrap();
        Self { folder }
    }

    fn with(self, name: &str, script: &str) -> Self {
        let path = self.folder.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    fn run(&self, words: &[&str]) -> Output {
        self.run_with(words, |_| {})
    }

    /// Root may open everything: it becomes nobody.
    fn run_as_stranger(&self, words: &[&str]) -> Output {
        let root = fs::metadata(self.folder.path()).unwrap().uid() == 0;
        self.run_with(words, |command| {
            if root {
                command.uid(65534).gid(65534);
            }
        })
    }

    fn run_with(&self, words: &[&str], prepare: impl Fn(&mut Command)) -> Output {
        let socket = self.folder.path().join("none.sock");
        loop {
            let mut command = Command::new(self.folder.path().join("dormouse"));
            command.env("PATH", "/nowhere").arg("--socket").arg(&socket).args(words);
            prepare(&mut command);
            match command.output() {
                // Another test's child, forked while we wrote the file, holds it open until its exec.
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {}
                output => return output.unwrap(),
            }
        }
    }
}

#[test]
fn off_and_on_are_the_guards() {
    let installed = Installed::new().with("dormouse-guard", "echo \"said $1\"; echo grumbled >&2; exit 7");
    let off = installed.run(&["off"]);
    assert_eq!((code(&off), stdout(&off), stderr(&off)), (7, "said off\n", "grumbled\n"));
    assert_eq!(stdout(&installed.run(&["on"])), "said on\n");
    let alone = Installed::new().run(&["off"]);
    assert_eq!(code(&alone), 1);
    assert!(stderr(&alone).contains("dormouse-guard is neither beside"), "{}", stderr(&alone));
}

#[test]
fn preflight_works_without_the_daemon() {
    let daemon = Daemon::start(script);
    let asked = daemon.run(&["preflight"]);
    let text = "ok    kernel  x\nFAIL  bpf     x\nNo swap: servers can doze here, but not go deep.\n";
    assert_eq!((code(&asked), stdout(&asked)), (1, text));

    let json = serde_json::to_string(&preflight()).unwrap();
    let say = format!("[ \"$*\" = 'preflight -o json' ] && echo '{json}'; exit 1");
    let own = Installed::new().with("dormoused", &say).run(&["preflight"]);
    assert_eq!((code(&own), stdout(&own)), (1, text), "{}", stderr(&own));
    let broken = Installed::new().with("dormoused", "echo no BPF here >&2; exit 9").run(&["preflight"]);
    assert_eq!(code(&broken), 1);
    assert!(stderr(&broken).contains("no BPF here\n") && stderr(&broken).contains("exit status: 9"));
    assert_eq!(code(&Installed::new().run(&["preflight"])), 4);
}

#[test]
fn completions_know_the_verbs() {
    for shell in ["bash", "zsh", "fish"] {
        let output = dormouse().args(["completions", shell]).output().unwrap();
        assert_eq!(code(&output), 0);
        assert!(stdout(&output).contains("preflight"));
    }
}
