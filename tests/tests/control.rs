//! A real node and a real control plane: reports, commands, thresholds, and the control plane away.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Result, ensure};
use dormouse_api::{registry::server::Server, remote::Remote, status::Stage};
use dormouse_tests::{
    process::{Place, Process},
    servers::echo::sibling,
    stand::{SOON, Stand},
};
use hyper::Method;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const URL: &str = "http://127.0.0.1:7443";
const NAME: &str = "bench/echo0";

/// The node of a stand, with a control plane beside the daemon.
struct Region {
    stand: Stand,
    control: Option<Process>,
    folder: PathBuf,
}

impl Region {
    fn start() -> Result<Self> {
        let stand = Stand::prepare(1, "")?;
        let folder = stand.daemon.path("control-plane");
        fs::create_dir_all(&folder)?;
        let mut region = Self { stand, control: None, folder };
        let operator = region.program("token").args(["--role", "operator", "--for", "1h"]).output()?;
        ensure!(operator.status.success(), "{}", String::from_utf8_lossy(&operator.stderr));
        fs::write(region.folder.join("token"), operator.stdout)?;
        region.start_control()?;
        region.ask(Method::POST, "/v1/tenants", json!({ "id": "bench" }))?;
        region.ask(Method::POST, "/v1/nodes", json!({ "name": "fra-1", "total_bytes": 1u64 << 30 }))?;
        let new = json!({ "name": NAME, "profile": "generic-tcp", "mode": "full" });
        region.ask(Method::POST, "/v1/servers", new)?;
        // What the stand's server files say, said by the registry.
        for (key, value) in [
            ("doze_after", "1h"),
            ("doze_by", "freeze"),
            ("floor", "dozing"),
            ("min_awake", "1s"),
            ("grace_after_start", "1s"),
            ("wakes_per_hour", "100000"),
        ] {
            let limits = "/v1/servers/bench%2Fecho0/limits";
            region.ask(Method::PATCH, limits, json!({ "key": key, "value": value }))?;
        }
        let new = json!({ "title": "fra-1", "role": "node", "node": "fra-1" });
        let key = region.ask(Method::POST, "/v1/keys", new)?;
        let secret = region.folder.join("secret");
        fs::write(&secret, key["secret"].as_str().unwrap_or_default())?;
        region.stand.daemon.configure(&format!(
            "profiles_from = \"control\"\n[control]\nurl = \"{URL}\"\nnode = \"fra-1\"\nkey = {}\nsecret_file = \"{}\"",
            key["key"]["id"],
            secret.display()
        ))?;
        region.stand.start()?;
        Ok(region)
    }

    fn program(&self, verb: &str) -> Command {
        let mut command = Command::new(sibling("dormouse-control").expect("dormouse-control is built"));
        command.arg(verb).arg("--keys").arg(self.folder.join("keys"));
        command
    }

    fn start_control(&mut self) -> Result<()> {
        let mut command = self.program("serve");
        command.arg("--database").arg(self.folder.join("region.db"));
        let mut control = Process::spawn("dormouse-control", command, Place::netns(&self.stand.node.netns))?;
        control.wait_until(SOON, || {
            let reached = self.stand.node.netns.run(|| std::net::TcpStream::connect("127.0.0.1:7443"));
            Ok(reached.map(drop)?)
        })?;
        self.control = Some(control);
        Ok(())
    }

    fn ask(&self, method: Method, path: &str, body: Value) -> Result<Value> {
        let token = fs::read_to_string(self.folder.join("token"))?;
        self.stand.node.netns.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let remote = Remote::new(URL, None)?.with_token(token.trim());
            let body = (method != Method::GET).then_some(body);
            Ok(runtime.block_on(remote.call(method, path, body.as_ref()))?)
        })
    }

    /// What the registry knows of the server.
    fn known(&self) -> Result<Server> {
        Ok(serde_json::from_value(self.ask(Method::GET, "/v1/servers/bench%2Fecho0", Value::Null)?)?)
    }

    fn until_reported(&self, stage: Stage) -> Result<()> {
        self.stand.wait_until("the report", || {
            let report = self.known()?.report;
            ensure!(report.as_ref().is_some_and(|report| report.stage == stage), "{report:?}");
            Ok(())
        })
    }

    /// `dormouse --control …` in the node; its exit status.
    fn dormouse(&self, words: &[&str]) -> Result<i32> {
        let mut command = Command::new(sibling("dormouse")?);
        command.args(["--control", URL]).args(words);
        command.env("DORMOUSE_TOKEN_FILE", self.folder.join("token"));
        let mut process = Process::spawn("dormouse", command, Place::netns(&self.stand.node.netns))?;
        let status = process.wait(Duration::from_secs(90))?;
        ensure!(status.code().is_some(), "{}", process.log());
        eprintln!("dormouse {}: {}", words.join(" "), process.log());
        Ok(status.code().unwrap_or(-1))
    }
}

#[test]
fn a_node_reports_obeys_follows_and_needs_no_control_plane() {
    let mut region = Region::start().unwrap();
    region
        .stand
        .wait_until("the first report", || {
            ensure!(region.known()?.report.is_some(), "no report yet");
            Ok(())
        })
        .unwrap();
    // Until the first fetch the files' thresholds hold: it may be asleep.
    assert_eq!(region.dormouse(&["wake", NAME]).unwrap(), 0);
    region.until_reported(Stage::Awake).unwrap();
    assert_eq!(region.known().unwrap().node.as_deref(), Some("fra-1"));

    // Thresholds are the registry's: the file's doze_after of one second would have put it to sleep by now.
    let limits = |region: &Region| {
        region.stand.daemon.ask(async |client| {
            Ok(client.explain(&dormouse_api::profile::Target::Server(NAME.to_owned())).await?)
        })
    };
    region
        .stand
        .wait_until("the registry's thresholds", || {
            let explain = limits(&region)?;
            let doze_after = explain.settings.iter().find(|setting| setting.key == "doze_after");
            ensure!(doze_after.is_some_and(|setting| setting.value.contains("1h")), "{doze_after:?}");
            Ok(())
        })
        .unwrap();

    // Commands.
    region
        .stand
        .wait_until("a sleep by command", || {
            region.until_reported(Stage::Awake)?;
            let status = region.dormouse(&["sleep", NAME])?;
            ensure!(status == 0, "dormouse sleep ended with {status}\n{}", region.stand.daemon.log());
            Ok(())
        })
        .unwrap();
    assert_eq!(region.stand.frozen().unwrap(), [true]);
    region.until_reported(Stage::Dozing).unwrap();
    assert_eq!(region.dormouse(&["wake", NAME]).unwrap(), 0);
    assert_eq!(region.stand.frozen().unwrap(), [false]);
    let keep = ["keep", NAME, "--for", "1h", "--reason", "party"];
    assert_eq!(region.dormouse(&keep).unwrap(), 0);
    region.until_reported(Stage::Awake).unwrap();
    assert_eq!(region.dormouse(&["sleep", NAME]).unwrap(), 3, "kept: refused");
    assert_eq!(region.dormouse(&["release", NAME]).unwrap(), 0);
    for words in [&["servers", "list"][..], &["nodes"], &["bus", "tail"], &["profile", "history", NAME]] {
        assert_eq!(region.dormouse(words).unwrap(), 0, "{words:?}");
    }

    // The control plane dies: a player wakes the server all the same, with the thresholds fetched last.
    region.stand.doze(0).unwrap();
    region.control.as_ref().unwrap().signal(Signal::SIGKILL).unwrap();
    region.control = None;
    assert_eq!(region.dormouse(&["nodes"]).unwrap(), 4, "unreachable");
    let answer = region.stand.tcp(0).unwrap();
    assert_eq!(answer.retransmissions, 0);
    region.stand.daemon.wait_for(NAME, Stage::Awake, SOON).unwrap();
    region.stand.daemon.end_by(Signal::SIGTERM).unwrap();
    region.stand.start_daemon().unwrap();
    region.stand.daemon.wait_for(NAME, Stage::Awake, SOON).unwrap();
    let explain = limits(&region).unwrap();
    assert!(
        explain.settings.iter().any(|setting| setting.key == "doze_after" && setting.value.contains("1h"))
    );

    // It comes back: the node finds it again.
    region.start_control().unwrap();
    let before = region.known().unwrap().report.unwrap().reported_at_ms;
    region
        .stand
        .wait_until("a new report", || {
            ensure!(
                region.known()?.report.is_some_and(|report| report.reported_at_ms > before),
                "no report yet"
            );
            Ok(())
        })
        .unwrap();
}
