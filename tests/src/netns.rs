//! Network namespaces: made by name, entered by a thread, removed on drop.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::owner;

/// Where iproute2 keeps named namespaces (ip-netns(8)).
const DIR: &str = "/run/netns";

/// A namespace of its own, `lo` up, duplicate address detection off (addresses work at once).
pub struct Netns {
    name: String,
    file: File,
}

impl Netns {
    pub fn create(role: &str) -> Result<Self> {
        let name = owner::unique(role);
        ip(&["netns", "add", &name])?;
        let file = File::open(path_of(&name)).with_context(|| format!("open {DIR}/{name}"))?;
        let netns = Self { name, file };
        netns.ip("link set lo up")?;
        netns.sysctl("ipv6/conf/all/accept_dad", "0")?;
        netns.sysctl("ipv6/conf/default/accept_dad", "0")?;
        Ok(netns)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn path(&self) -> PathBuf {
        path_of(&self.name)
    }

    /// Runs `f` on a thread inside the namespace. Sockets it makes stay there; what it spawns too.
    ///
    /// # Panics
    /// With `f`'s own panic, or when the namespace can't be entered.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        Self::run_in(&self.file, f)
    }

    /// [`Netns::run`] in a namespace without a name, by its file below `/proc/PID/ns`.
    ///
    /// # Panics
    /// As [`Netns::run`].
    pub fn run_in<T: Send>(namespace: &File, f: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("enter the network namespace (needs root)");
            f()
        };
        thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// `ip -n NAME ARGS`, split at blanks.
    pub fn ip(&self, args: &str) -> Result<()> {
        let mut all = vec!["-n", &self.name];
        all.extend(args.split_whitespace());
        ip(&all)
    }

    /// Connections in the accept queues of a TCP port.
    pub fn waiting_to_be_accepted(&self, port: u16) -> Result<u32> {
        let listeners = ["-Hltn", &format!("sport = :{port}")];
        let output = self.run(|| Command::new("ss").args(listeners).output()).context("run ss")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.lines().filter_map(|line| line.split_whitespace().nth(1)?.parse::<u32>().ok()).sum())
    }

    /// Writes `/proc/sys/net/KEY` of this namespace.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{key}");
        self.run(|| fs::write(&path, value))
            .with_context(|| format!("write {value} to {path} in {}", self.name))
    }

    /// Reads a counter or setting below `/proc/net` or `/proc/sys/net` as this namespace sees it.
    /// Threads have their own view in `/proc/thread-self/net` (proc_pid_net(5)).
    pub fn read(&self, path: &str) -> Result<String> {
        self.run(|| fs::read_to_string(path)).with_context(|| format!("read {path} in {}", self.name))
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// All named namespaces that this process made and has not removed yet.
pub fn mine() -> Vec<String> {
    names().into_iter().filter(|name| owner::is_mine(name)).collect()
}

pub(crate) fn sweep() {
    for name in names().into_iter().filter(|name| owner::is_leftover(name)) {
        eprintln!("bench: removing namespace {name} of an earlier run");
        let pids = Command::new("ip").args(["netns", "pids", &name]).output();
        let pids = pids.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
        for pid in pids.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            // Gone already is as good.
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        remove(&name);
    }
}

fn names() -> Vec<String> {
    let entries = fs::read_dir(DIR).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn remove(name: &str) {
    if let Err(error) = ip(&["netns", "del", name]) {
        eprintln!("bench: {error:#}");
    }
}

fn path_of(name: &str) -> PathBuf {
    PathBuf::from(DIR).join(name)
}

fn ip(args: &[&str]) -> Result<()> {
    let out = Command::new("ip").args(args).output().context("run ip: install iproute2")?;
    if !out.status.success() {
        bail!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}
