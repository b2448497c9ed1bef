//! PostgreSQL and Redis of one's own, as an operator would run them: durable, on loopback.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::owner;
use crate::process::{Place, Process};

/// Debian's.
const BIN: &str = "/usr/lib/postgresql/15/bin";
/// Its role that may do anything makes the role `dormouse`, which may not.
pub const ROLE: &str = "CREATE ROLE dormouse LOGIN";
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
        let made = as_postgres("initdb")
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "-D"])
            .arg(&data)
            .stdout(Stdio::null())
            .status()?;
        ensure!(made.success(), "initdb ended with {made}");
        let port = free_port()?;
        let mut command = on_core(core, &as_postgres("postgres"));
        command.arg("-D").arg(&data).args(["-p", &port.to_string(), "-k"]).arg(folder.path());
        // Everything else as it is shipped: fsync, synchronous_commit and full_page_writes are on.
        command.args(["-c", "listen_addresses=127.0.0.1"]);
        let mut process = Process::spawn("postgres", command, Place::default())?;
        process.wait_until(SOON, || sql(port, "SELECT 1"))?;
        sql(port, ROLE)?;
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

/// A program of PostgreSQL's, which doesn't run as root.
pub fn as_postgres(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]);
    command.arg(format!("{BIN}/{program}"));
    command
}

/// Runs a statement as the role that may do anything, on this machine or in the namespace of the thread that asks.
///
/// # Errors
/// PostgreSQL doesn't answer, or refuses it.
pub fn sql(port: u16, sql: &str) -> Result<()> {
    let output = Command::new(format!("{BIN}/psql"))
        .args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port.to_string(), "-qtc", sql, "postgres"])
        .output()
        .context("psql")?;
    ensure!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The same command, on one core.
fn on_core(core: usize, command: &Command) -> Command {
    let mut pinned = Command::new("taskset");
    pinned.args(["-c", &core.to_string()]).arg(command.get_program()).args(command.get_args());
    pinned
}

/// With an append-only file, as the control plane's events want it.
pub fn redis_server(folder: &Path) -> Command {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--dir"]).arg(folder);
    command
}

/// A Redis of one's own; gone with this value.
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
        let mut command = on_core(core, &redis_server(folder.path()));
        command.args(["--port", &port.to_string()]);
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
