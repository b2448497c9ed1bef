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
    folder: PathBuf,
}

static CLUSTER: OnceLock<Cluster> = OnceLock::new();
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A new database that belongs to a role without rights beyond it; its address.
pub fn database() -> String {
    let cluster = CLUSTER.get_or_init(Cluster::start);
    cluster.database(&format!("region{}", NEXT.fetch_add(1, Ordering::Relaxed)))
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
    /// Lives as long as the test program.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("dormouse-pg").tempdir_in("/tmp").unwrap().keep();
        give_to(&folder, "postgres").unwrap();
        let made = as_postgres("initdb")
            .args(["--auth=trust", "--no-sync", "--username=postgres", "-D"])
            .arg(folder.join("data"))
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success(), "initdb");
        let cluster = Self { port: free_port(), folder };
        cluster.run();
        cluster.sql("CREATE ROLE dormouse LOGIN");
        cluster
    }

    /// A shell waits at a pipe from the test program, and ends the server when the pipe closes, also after a panic or
    /// a kill.
    fn run(&self) {
        let script = "setpriv --reuid=postgres --regid=postgres --clear-groups -- \
                      \"$0/postgres\" -D \"$1/data\" -p \"$2\" -k \"$1\" \
                      -c listen_addresses=127.0.0.1 -c max_connections=300 -c fsync=off >>\"$1/log\" 2>&1 & \
                      server=$!; cat >/dev/null; kill -INT $server 2>/dev/null; wait $server; rm -rf \"$1\"";
        let mut keeper = Command::new("sh");
        keeper.args(["-c", script, BIN]).arg(&self.folder).arg(self.port.to_string()).stdin(Stdio::piped());
        // Not in the test's process group: an interrupt of the test must leave the shell to clean up.
        let mut keeper = keeper.process_group(0).spawn().unwrap();
        // The pipe closes with this process.
        std::mem::forget(keeper.stdin.take());
        self.wait(&self.folder);
    }

    /// A new database that belongs to `dormouse`; its address.
    pub fn database(&self, name: &str) -> String {
        self.sql(&format!("CREATE DATABASE {name} OWNER dormouse"));
        format!("postgres://dormouse@127.0.0.1:{}/{name}", self.port)
    }

    /// SIGKILL to the whole of it.
    pub fn kill(&self) {
        let pid = std::fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap();
        let killed = Command::new("kill").args(["-9", pid.lines().next().unwrap()]).status().unwrap();
        assert!(killed.success());
        // Its children see that it is gone, and go: before the last of them no other may start here.
        let end = Instant::now() + Duration::from_secs(30);
        while self.is_at_work() {
            assert!(Instant::now() < end, "PostgreSQL's children stay");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn start_again(&self) {
        self.run();
    }

    /// Some process of it is there: they all work in its data folder.
    fn is_at_work(&self) -> bool {
        let data = self.folder.join("data");
        let works = |process: std::fs::DirEntry| {
            std::fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == data)
        };
        std::fs::read_dir("/proc").unwrap().flatten().any(works)
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
