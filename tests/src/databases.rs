//! PostgreSQL and Redis of one's own, as an operator would run them: durable, on loopback.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::owner;
use crate::process::{Place, Process};

/// Debian's.
const BIN: &str = "/usr/lib/postgresql/15/bin";
const SOON: Duration = Duration::from_secs(30);

/// A cluster with the role `dormouse`; gone with this value.
pub struct Postgres {
    process: Process,
    port: u16,
    _folder: TempDir,
}

impl Postgres {
    /// On one core, beside whatever else runs there.
    ///
    /// # Errors
    /// PostgreSQL 15 is not installed (`scripts/setup control`), or did not start.
    pub fn start(core: usize) -> Result<Self> {
        let folder = owner::temp_dir("postgres")?;
        let status = Command::new("chown").arg("postgres").arg(folder.path()).status()?;
        ensure!(status.success(), "chown postgres: is it installed? scripts/setup control");
        let data = folder.path().join("data");
        let as_postgres = |program: &str| {
            let mut command = Command::new("taskset");
            command.args(["-c", &core.to_string(), "setpriv", "--reuid=postgres", "--regid=postgres"]);
            command.args(["--clear-groups", "--"]).arg(format!("{BIN}/{program}")).arg("-D").arg(&data);
            command
        };
        let made = as_postgres("initdb")
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8"])
            .stdout(Stdio::null())
            .status()?;
        ensure!(made.success(), "initdb ended with {made}");
        let port = free_port()?;
        let mut command = as_postgres("postgres");
        command.args(["-p", &port.to_string(), "-k"]).arg(folder.path());
        // Everything else as it is shipped: fsync, synchronous_commit and full_page_writes are on.
        command.args(["-c", "listen_addresses=127.0.0.1"]);
        let mut process = Process::spawn("postgres", command, Place::default())?;
        process.wait_until(SOON, || sql(port, "SELECT 1"))?;
        sql(port, "CREATE ROLE dormouse LOGIN")?;
        Ok(Self { process, port, _folder: folder })
    }

    /// A new database that belongs to `dormouse`; its address.
    ///
    /// # Errors
    /// There is one of this name.
    pub fn database(&self, name: &str) -> Result<String> {
        sql(self.port, &format!("CREATE DATABASE {name} OWNER dormouse"))?;
        Ok(format!("postgres://dormouse@127.0.0.1:{}/{name}", self.port))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // At once, but with its shared memory given back; what is in the database goes anyway.
        if self.process.signal(Signal::SIGQUIT).is_ok() {
            let _ = self.process.wait(SOON);
        }
    }
}

fn sql(port: u16, sql: &str) -> Result<()> {
    let output = Command::new(format!("{BIN}/psql"))
        .args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port.to_string(), "-qtc", sql, "postgres"])
        .output()
        .context("psql")?;
    ensure!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A Redis with an append-only file, as the control plane's events want it.
pub struct Redis {
    _process: Process,
    port: u16,
    _folder: TempDir,
}

impl Redis {
    /// # Errors
    /// Redis is not installed (`scripts/setup control`), or did not start.
    pub fn start(core: usize) -> Result<Self> {
        let (folder, port) = (owner::temp_dir("redis")?, free_port()?);
        let mut command = Command::new("taskset");
        command.args(["-c", &core.to_string(), "redis-server", "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--appendonly", "yes", "--port", &port.to_string(), "--dir"]).arg(folder.path());
        let mut process = Process::spawn("redis-server", command, Place::default())?;
        process.wait_until(SOON, || Ok(std::net::TcpStream::connect(("127.0.0.1", port)).map(drop)?))?;
        Ok(Self { _process: process, port, _folder: folder })
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

/// A port that nobody listens on now.
///
/// # Errors
/// None is left.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
