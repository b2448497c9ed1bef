//! One PostgreSQL for all tests of the run, a database each.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::{free_port, give_to};

/// Debian's.
const BIN: &str = "/usr/lib/postgresql/15/bin";

pub struct Cluster {
    port: u16,
}

static CLUSTER: OnceLock<Cluster> = OnceLock::new();
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A new database that belongs to a role without rights beyond it; its address.
pub fn database() -> String {
    let cluster = CLUSTER.get_or_init(Cluster::start);
    let name = format!("region{}", NEXT.fetch_add(1, Ordering::Relaxed));
    cluster.sql(&format!("CREATE DATABASE {name} OWNER dormouse"));
    format!("postgres://dormouse@127.0.0.1:{}/{name}", cluster.port)
}

/// A copy of a database that nobody is connected to; its address.
pub fn copy(url: &str) -> String {
    let cluster = CLUSTER.get().expect("it made the database");
    let (server, from) = url.rsplit_once('/').unwrap();
    let name = format!("region{}", NEXT.fetch_add(1, Ordering::Relaxed));
    // A killed program's connections end a moment after it.
    let end = Instant::now() + Duration::from_secs(20);
    while !cluster.try_sql(&format!("CREATE DATABASE {name} TEMPLATE {from} OWNER dormouse")) {
        assert!(Instant::now() < end, "{from} cannot be copied");
        std::thread::sleep(Duration::from_millis(50));
    }
    format!("{server}/{name}")
}

pub fn superuser_url(database: &str) -> String {
    database.replace("dormouse@", "postgres@")
}

fn as_postgres(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]);
    command.arg(format!("{BIN}/{program}"));
    command
}

impl Cluster {
    /// Lives as long as the test program: a shell waits at a pipe from it, and ends the server when the pipe closes,
    /// also after a panic or a kill.
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("dormouse-pg").tempdir_in("/tmp").unwrap().keep();
        give_to(&folder, "postgres").unwrap();
        let data = folder.join("data");
        let made = as_postgres("initdb")
            .args(["--auth=trust", "--no-sync", "--username=postgres", "-D"])
            .arg(&data)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success(), "initdb");
        let port = free_port();
        let script = "setpriv --reuid=postgres --regid=postgres --clear-groups -- \
                      \"$0/postgres\" -D \"$1/data\" -p \"$2\" -k \"$1\" \
                      -c listen_addresses=127.0.0.1 -c max_connections=300 -c fsync=off >\"$1/log\" 2>&1 & \
                      server=$!; cat >/dev/null; kill -INT $server; wait $server; rm -rf \"$1\"";
        let mut keeper = Command::new("sh");
        keeper.args(["-c", script, BIN]).arg(&folder).arg(port.to_string()).stdin(Stdio::piped());
        // Not in the test's process group: an interrupt of the test must leave the shell to clean up.
        let mut keeper = keeper.process_group(0).spawn().unwrap();
        // The pipe closes with this process.
        std::mem::forget(keeper.stdin.take());
        let cluster = Self { port };
        cluster.wait(&folder);
        cluster.sql("CREATE ROLE dormouse LOGIN");
        cluster
    }

    fn wait(&self, folder: &PathBuf) {
        let end = Instant::now() + Duration::from_secs(60);
        while !self.try_sql("SELECT 1") {
            assert!(
                Instant::now() < end,
                "PostgreSQL did not start: {}",
                std::fs::read_to_string(folder.join("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn sql(&self, sql: &str) {
        assert!(self.try_sql(sql), "{sql}");
    }

    fn try_sql(&self, sql: &str) -> bool {
        Command::new(format!("{BIN}/psql"))
            .args(["-h", "127.0.0.1", "-U", "postgres", "-qtc", sql, "postgres", "-p"])
            .arg(self.port.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    }
}
