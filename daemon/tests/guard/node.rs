//! A node of a test's own: directories, a private bpffs, cgroups with processes, and the guard's process.

use std::{
    cell::RefCell,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use aya::maps::{Array, Map, MapData};
use dormouse_abi::{LAYOUT, node, server::ServerState};
use dormouse_daemon::{
    act::{doze, freezer::Freezer},
    undo::UndoLog,
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::bpf;

pub const PATIENCE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_hours(1);

/// Runs a test in mount and network namespaces of its own, which go with its thread.
pub fn in_own_namespaces(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect("root");
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub struct Node {
    pub dir: tempfile::TempDir,
}

impl Node {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bpffs = dir.path().join("bpf");
        std::fs::create_dir(&bpffs).unwrap();
        mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
        Self { dir }
    }

    pub fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn pin_dir(&self) -> PathBuf {
        self.dir.path().join("bpf/dormouse")
    }

    pub fn pins(&self) -> PathBuf {
        self.pin_dir().join(LAYOUT)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse-guard"));
        command.arg("--run-dir").arg(self.run_dir());
        command.arg("--state-dir").arg(self.state_dir());
        command.arg("--pin-dir").arg(self.pin_dir());
        command
    }

    pub fn call(&self, subcommand: &str) -> Output {
        self.command().arg(subcommand).output().unwrap()
    }

    pub fn guard(&self, flags: &[&str]) -> Guard {
        let mut child = self.command().arg("run").args(flags).stderr(Stdio::piped()).spawn().unwrap();
        let lines = RefCell::new(BufReader::new(child.stderr.take().unwrap()));
        Guard { child, lines }
    }
}

/// The door's arrays, as a daemon would have pinned them.
pub struct Door {
    node: Array<MapData, u64>,
    states: Array<MapData, ServerState>,
}

impl Door {
    pub fn new(node: &Node) -> Self {
        let pins = node.pins();
        std::fs::create_dir_all(&pins).unwrap();
        let open = |name: &str, value_size: usize, entries: u32| {
            let path = pins.join(name);
            bpf::pin(&bpf::array(value_size, entries), &path);
            Map::Array(MapData::from_pin(&path).unwrap())
        };
        Self {
            node: Array::try_from(open("NODE", size_of::<u64>(), node::LEN)).unwrap(),
            states: Array::try_from(open("STATES", size_of::<ServerState>(), 16)).unwrap(),
        }
    }

    /// A daemon that has beaten just now, and need not beat again for an hour.
    pub fn alive(&mut self) {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap();
        self.node.set(node::STALE_AFTER_NS, HOUR.as_nanos() as u64, 0).unwrap();
        self.node.set(node::HEARTBEAT_NS, now.as_nanos() as u64, 0).unwrap();
    }

    /// A daemon that has beaten once, long ago.
    pub fn stale(&mut self) {
        self.node.set(node::STALE_AFTER_NS, 1, 0).unwrap();
        self.node.set(node::HEARTBEAT_NS, 1, 0).unwrap();
    }

    pub fn knock(&mut self, slot: u32) {
        let mut state = self.states.get(&slot, 0).unwrap();
        state.wake_ns = 1;
        self.states.set(slot, state, 0).unwrap();
    }
}

/// A frozen process in a cgroup of its own, with its undo log; both go with it.
pub struct Server {
    cgroup: PathBuf,
    child: Child,
}

impl Server {
    pub fn asleep(node: &Node, slot: u32) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|words| words[2] == "cgroup2")
            .expect("a cgroup v2 mount")[1]
            .to_owned();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let cgroup = Path::new(&root).join(format!("dormouse-guard-{}-{number}", std::process::id()));
        std::fs::create_dir(&cgroup).unwrap();
        let script = format!("echo $$ > {}/cgroup.procs && exec sleep 600", cgroup.display());
        let child = Command::new("sh").args(["-c", &script]).spawn().unwrap();
        let server = Self { cgroup, child };
        let mut freezer = Freezer::open(&server.cgroup).unwrap();
        wait_until("the server runs", || freezer.state().unwrap().populated);
        let log = UndoLog::of_server(&node.run_dir(), &format!("server-{slot}"), slot).unwrap();
        doze::freeze(&mut freezer, &log, PATIENCE).unwrap();
        server
    }

    pub fn is_frozen(&self) -> bool {
        Freezer::open(&self.cgroup).unwrap().state().unwrap().frozen
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::write(self.cgroup.join("cgroup.freeze"), "0");
        let _ = self.child.kill();
        let _ = self.child.wait();
        for _ in 0..1000 {
            if std::fs::remove_dir(&self.cgroup).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// The guard under test; killed with the test.
pub struct Guard {
    child: Child,
    lines: RefCell<BufReader<ChildStderr>>,
}

impl Guard {
    /// Reads the guard's log up to a line with this text.
    pub fn wait_for_line(&self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            let length = self.lines.borrow_mut().read_line(&mut line).unwrap();
            assert!(length > 0, "the guard ended without saying {text:?}");
        }
    }

    pub fn terminate(mut self) -> ExitStatus {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).unwrap();
        self.child.wait().unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
