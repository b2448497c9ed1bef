//! The node of a stand, with a control plane in its namespace that it follows.

use std::{fs, process::Command, time::Duration};

use anyhow::{Result, ensure};
use dormouse_api::{registry::server::Server, remote::Remote, status::Stage};
use dormouse_tests::{
    netns::Netns,
    process::{Place, Process},
    servers::echo::sibling,
    stand::Stand,
};
use hyper::Method;
use serde_json::{Value, json};

use crate::plane::{Plane, URL};

pub struct Region {
    pub plane: Plane,
    pub stand: Stand,
}

impl Region {
    /// With so many servers, which sleep when they are told to. `services`: PostgreSQL and Redis behind it.
    pub fn start(count: u8, services: bool) -> Result<Self> {
        let stand = Stand::prepare(count, "")?;
        let plane = Plane::prepare(stand.daemon.path("control-plane"), services)?;
        let mut region = Self { plane, stand };
        let operator = region.plane.program("token").args(["--role", "operator", "--for", "1h"]).output()?;
        ensure!(operator.status.success(), "{}", String::from_utf8_lossy(&operator.stderr));
        fs::write(region.plane.folder().join("token"), operator.stdout)?;
        region.start_control()?;
        region.ask(Method::POST, "/v1/tenants", json!({ "id": "bench" }))?;
        region.ask(Method::POST, "/v1/nodes", json!({ "name": "fra-1", "total_bytes": 1u64 << 30 }))?;
        for pot in &region.stand.pots {
            let new = json!({ "name": pot.name, "profile": "generic-tcp", "mode": "full" });
            region.ask(Method::POST, "/v1/servers", new)?;
        }
        // What the stand's server files say, said by the registry.
        for (key, value) in [
            ("doze_after", "1h"),
            ("doze_by", "freeze"),
            ("floor", "dozing"),
            ("min_awake", "1s"),
            ("grace_after_start", "1s"),
            ("wakes_per_hour", "100000"),
        ] {
            let change = json!({ "key": key, "value": value });
            region.ask(Method::PATCH, "/v1/profiles/generic-tcp", change)?;
        }
        let new = json!({ "title": "fra-1", "role": "node", "node": "fra-1" });
        let key = region.ask(Method::POST, "/v1/keys", new)?;
        let secret = region.plane.folder().join("secret");
        fs::write(&secret, key["secret"].as_str().unwrap_or_default())?;
        region.stand.daemon.configure(&format!(
            "profiles_from = \"control\"\n[control]\nurl = \"{URL}\"\nnode = \"fra-1\"\nkey = {}\nsecret_file = \"{}\"",
            key["key"]["id"],
            secret.display()
        ))?;
        region.stand.start()?;
        region.stand.wait_until("the first report", || {
            ensure!(region.known(0)?.report.is_some(), "no report yet");
            Ok(())
        })?;
        Ok(region)
    }

    pub fn netns(&self) -> &Netns {
        &self.stand.node.netns
    }

    pub fn start_control(&mut self) -> Result<()> {
        self.plane.start(&self.stand.node.netns)
    }

    pub fn ask(&self, method: Method, path: &str, body: Value) -> Result<Value> {
        let token = fs::read_to_string(self.plane.folder().join("token"))?;
        self.netns().run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let remote = Remote::new(URL, None)?.with_token(token.trim());
            let body = (method != Method::GET).then_some(body);
            Ok(runtime.block_on(remote.call(method, path, body.as_ref()))?)
        })
    }

    pub fn get(&self, path: &str) -> Result<Value> {
        self.ask(Method::GET, path, Value::Null)
    }

    /// What the registry knows of a server.
    pub fn known(&self, index: usize) -> Result<Server> {
        Ok(serde_json::from_value(self.get(&format!("/v1/servers/bench%2Fecho{index}"))?)?)
    }

    pub fn until_reported(&self, index: usize, stage: Stage) -> Result<()> {
        self.stand.wait_until("the report", || {
            let report = self.known(index)?.report;
            ensure!(report.as_ref().is_some_and(|report| report.stage == stage), "{report:?}");
            Ok(())
        })
    }

    /// `dormouse --control …` in the node; its exit status.
    pub fn dormouse(&self, words: &[&str]) -> Result<i32> {
        let (status, said) = self.dormouse_at(URL, words)?;
        eprintln!("dormouse {}: {said}", words.join(" "));
        Ok(status)
    }

    /// By an address or a context; its exit status and what it said.
    pub fn dormouse_at(&self, which: &str, words: &[&str]) -> Result<(i32, String)> {
        let mut command = Command::new(sibling("dormouse")?);
        command.args(["--control", which]).args(words);
        command.env("DORMOUSE_TOKEN_FILE", self.plane.folder().join("token"));
        command.env("XDG_CONFIG_HOME", self.plane.folder().join("config"));
        let mut process = Process::spawn("dormouse", command, Place::netns(self.netns()))?;
        let status = process.wait(Duration::from_secs(90))?;
        ensure!(status.code().is_some(), "{}", process.log());
        Ok((status.code().unwrap_or(-1), process.log()))
    }
}
