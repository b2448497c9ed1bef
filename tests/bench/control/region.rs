//! The two that are compared, on one core with their database.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use dormouse_api::registry::login::Role;
use dormouse_control::auth::keys::KeyRing;
use dormouse_control::auth::token::{Grant, sign};
use dormouse_tests::databases::{Postgres, Redis};
use dormouse_tests::owner;
use dormouse_tests::process::{Place, Process};
use dormouse_tests::servers::echo::sibling;
use tempfile::TempDir;

use super::SERVER_CORE;

const SOON: Duration = Duration::from_secs(30);
pub const REGION: &str = "bench";

/// Where the rows are.
#[derive(Clone, Copy)]
pub enum Database<'a> {
    Sqlite,
    /// With Redis, as where one machine is not enough.
    Postgres(&'a Postgres, &'a Redis),
}

impl Database<'_> {
    pub fn word(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres(..) => "postgres",
        }
    }
}

/// One server program with a database of its own.
pub struct Running {
    pub url: String,
    /// An operator's.
    pub token: String,
    pub database: String,
    process: Process,
    keys: KeyRing,
    _folder: TempDir,
}

impl Running {
    pub fn control(on: Database<'_>, name: &str) -> Result<Self> {
        let mut arguments: Vec<String> = vec!["serve".to_owned()];
        arguments
            .extend(["--listen", "127.0.0.1:0", "--rate", "1000000", "--region", REGION].map(str::to_owned));
        if let Database::Postgres(_, redis) = on {
            arguments.extend(["--index".to_owned(), redis.url()]);
        }
        Self::start("dormouse-control", &arguments, on, name)
    }

    pub fn bare(on: Database<'_>, name: &str) -> Result<Self> {
        Self::start("bare-registry", &[], on, name)
    }

    /// As the bare one, but each change writes an event and a kept answer too.
    pub fn three_rows(on: Database<'_>, name: &str) -> Result<Self> {
        Self::start("bare-registry", &["--three-rows".to_owned()], on, name)
    }

    fn start(program: &str, arguments: &[String], on: Database<'_>, name: &str) -> Result<Self> {
        let folder = owner::temp_dir(program)?;
        let database = match on {
            Database::Sqlite => folder.path().join("region.db").display().to_string(),
            Database::Postgres(postgres, _) => postgres.database(name)?,
        };
        let keys = folder.path().join("keys");
        let keys = KeyRing::open(&keys).map(|ring| (ring, keys))?;
        let mut command = Command::new("taskset");
        command.args(["-c", &SERVER_CORE.to_string()]).arg(sibling(program)?).args(arguments);
        command.args(["--database", &database]).arg("--keys").arg(&keys.1).env("DORMOUSE_LOG", "warn");
        let mut process = Process::spawn(program, command, Place::default())?;
        let log = process.log_path().to_owned();
        let url = process.wait_until(SOON, || said(&log))?;
        let mut running =
            Self { url, token: String::new(), database, process, keys: keys.0, _folder: folder };
        running.token = running.token("operator", Role::Operator, None)?;
        Ok(running)
    }

    pub fn token(&self, subject: &str, role: Role, node: Option<&str>) -> Result<String> {
        let lives = Duration::from_hours(1);
        let grant = Grant { subject, region: REGION, role, tenant: None, node, lives };
        Ok(sign(&self.keys.keys(), &grant)?.0)
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Resident memory of the program, in MiB.
    pub fn rss_mib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }
}

/// What it listens on, once it has said so.
fn said(log: &Path) -> Result<String> {
    let text = fs::read_to_string(log)?;
    let url = text.lines().find_map(|line| line.strip_prefix("listening on "));
    Ok(url.context("it does not listen yet")?.to_owned())
}
