//! What the tests of this crate need of the real kernel: cgroups, processes, namespaces. Everything goes away
//! when it is dropped.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::mounts::CgroupRoot;
use super::process::is_empty;

/// An error with all its sources, as an operator reads it.
pub fn message(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        write!(text, ": {error}").unwrap();
        source = error.source();
    }
    text
}

/// Tries until it is so; the kernel does some things a moment later.
pub fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if so() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("never happened: {what}");
}

/// A cgroup v2 of the test's own.
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    pub fn new(what: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("dormouse-test-{what}-{}-{count}", std::process::id());
        let path = CgroupRoot::find().unwrap().path.join(name);
        fs::create_dir(&path).unwrap();
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn name(&self) -> String {
        self.path.file_name().unwrap().to_str().unwrap().to_owned()
    }

    pub fn child(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        fs::create_dir(&path).unwrap();
        path
    }

    pub fn freeze(&self) {
        fs::write(self.path.join("cgroup.freeze"), "1").unwrap();
        eventually("the cgroup is frozen", || {
            fs::read_to_string(self.path.join("cgroup.events")).unwrap().contains("frozen 1")
        });
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        for _ in 0..2000 {
            if is_empty(&self.path).unwrap_or(true) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        remove(&self.path);
    }
}

/// Cgroup directories hold files that can't be unlinked: only the directories are removed.
fn remove(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(directory);
}

/// A process that dies with the test.
pub struct Victim {
    child: Child,
}

impl Victim {
    /// A sleeping process in a cgroup, which is made if it isn't there.
    pub fn sleep_in(cgroup: &Path) -> Self {
        let victim = Self::start(Command::new("sleep").arg("1000"));
        victim.move_to(cgroup);
        let pid = victim.pid();
        // Until exec is through, its command line is still the test's.
        eventually("the victim sleeps", || {
            fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim() == "sleep"
        });
        victim
    }

    pub fn busy_in(cgroup: &Path) -> Self {
        let victim = Self::start(Command::new("sh").args(["-c", "while :; do :; done"]));
        victim.move_to(cgroup);
        victim
    }

    /// A Python program in a cgroup and, if given, a namespace; back once it has printed a line.
    pub fn python(program: &str, cgroup: &Path, namespace: Option<&Namespace>) -> Self {
        let mut command = match namespace {
            Some(namespace) => namespace.command("python3"),
            None => Command::new("python3"),
        };
        let mut victim = Self::start(command.args(["-u", "-c", program]).stdout(Stdio::piped()));
        victim.move_to(cgroup);
        let mut line = String::new();
        BufReader::new(victim.child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        victim
    }

    fn start(command: &mut Command) -> Self {
        Self { child: command.spawn().unwrap() }
    }

    fn move_to(&self, cgroup: &Path) {
        fs::create_dir_all(cgroup).unwrap();
        fs::write(cgroup.join("cgroup.procs"), self.pid().to_string()).unwrap();
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A network namespace that lives as long as the process in it; its devices go with it.
pub struct Namespace {
    holder: Victim,
}

impl Namespace {
    pub fn new() -> Self {
        let holder = Victim::start(Command::new("unshare").args(["--net", "sleep", "1000"]));
        let namespace = Self { holder };
        let inode = |pid: &str| fs::metadata(format!("/proc/{pid}/ns/net")).unwrap().ino();
        let pid = namespace.pid().to_string();
        eventually("the namespace is there", || inode("self") != inode(&pid));
        namespace.ip("link set lo up");
        namespace
    }

    pub fn pid(&self) -> i32 {
        self.holder.pid()
    }

    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.pid())).arg(program);
        command
    }

    /// `ip …` inside.
    pub fn ip(&self, arguments: &str) {
        let status = self.command("ip").args(arguments.split_whitespace()).status().unwrap();
        assert!(status.success(), "ip {arguments}");
    }

    /// Runs something on a thread inside.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = fs::File::open(format!("/proc/{}/ns/net", self.pid())).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }
}
