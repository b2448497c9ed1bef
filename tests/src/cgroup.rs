//! Cgroups of the bench: children of the machine's cgroup v2 root, pure v2 or hybrid.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::owner;

/// One cgroup; whatever runs in it is killed and the cgroup removed on drop.
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    pub fn create(role: &str) -> Result<Self> {
        let path = root()?.join(owner::unique(role));
        fs::create_dir(&path).with_context(|| format!("make {} (needs root)", path.display()))?;
        Ok(Self { path })
    }

    /// A cgroup below this one, with the cpu and memory controllers that this one has.
    pub fn create_below(&self, role: &str) -> Result<Self> {
        for controller in ["cpu", "memory"] {
            if self.read("cgroup.controllers")?.split_whitespace().any(|there| there == controller) {
                let path = self.path.join("cgroup.subtree_control");
                fs::write(&path, format!("+{controller}"))
                    .with_context(|| format!("write {}", path.display()))?;
            }
        }
        let path = self.path.join(role);
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn pids(&self) -> Result<Vec<u32>> {
        let pids = self.read("cgroup.procs")?;
        pids.lines().map(|pid| pid.parse().context("a pid of cgroup.procs")).collect()
    }

    /// Freezes or thaws, and waits until the kernel says so: `cgroup.freeze` is asynchronous
    /// (Documentation/admin-guide/cgroup-v2.rst).
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let path = self.path.join("cgroup.freeze");
        fs::write(&path, if frozen { "1" } else { "0" })
            .with_context(|| format!("write {}", path.display()))?;
        wait_for(&self.path, "frozen", frozen, Duration::from_secs(10))
    }

    pub fn is_frozen(&self) -> Result<bool> {
        Ok(event(&self.read("cgroup.events")?, "frozen"))
    }

    /// Resident and swapped bytes of all processes in the cgroup (VmRSS and VmSwap of proc_pid_status(5)).
    pub fn memory(&self) -> Result<Memory> {
        let mut sum = Memory::default();
        for pid in self.pids()? {
            // A process may end between the two reads.
            let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
            sum.resident += kib(&status, "VmRSS:") * 1024;
            sum.swapped += kib(&status, "VmSwap:") * 1024;
        }
        Ok(sum)
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = self.path.join(file);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }
}

/// In bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    pub resident: u64,
    pub swapped: u64,
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            eprintln!("bench: {error:#}");
        }
    }
}

/// The cgroup v2 mount: the first of type cgroup2 in /proc/self/mountinfo (proc_pid_mountinfo(5)).
pub fn root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    root_in(&mounts).context("no cgroup2 mount on this machine")
}

fn root_in(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        (after.split(' ').next()? == "cgroup2").then(|| before.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// All cgroups that this process made and has not removed yet.
pub fn mine() -> Vec<PathBuf> {
    ours().into_iter().filter(|(name, _)| owner::is_mine(name)).map(|(_, path)| path).collect()
}

pub(crate) fn sweep() {
    for (name, path) in ours().into_iter().filter(|(name, _)| owner::is_leftover(name)) {
        eprintln!("bench: removing cgroup {name} of an earlier run");
        if let Err(error) = remove(&path) {
            eprintln!("bench: {error:#}");
        }
    }
}

fn ours() -> Vec<(String, PathBuf)> {
    let Ok(root) = root() else { return Vec::new() };
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))).collect()
}

/// Kills everything below (`cgroup.kill`, Linux 5.14; it also ends the frozen), then removes the directory.
fn remove(path: &Path) -> Result<()> {
    let children = fs::read_dir(path).into_iter().flatten().flatten();
    for child in children.filter(|entry| entry.path().is_dir()) {
        remove(&child.path())?;
    }
    match fs::write(path.join("cgroup.kill"), "1") {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.with_context(|| format!("kill what runs in {}", path.display()))?,
    }
    wait_for(path, "populated", false, Duration::from_secs(10))?;
    fs::remove_dir(path).with_context(|| format!("remove {}", path.display()))
}

/// Waits for a key of `cgroup.events`; the kernel signals a change as POLLPRI.
fn wait_for(cgroup: &Path, key: &str, wanted: bool, limit: Duration) -> Result<()> {
    let path = cgroup.join("cgroup.events");
    let end = Instant::now() + limit;
    loop {
        let mut file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let mut events = String::new();
        file.read_to_string(&mut events).with_context(|| format!("read {}", path.display()))?;
        if event(&events, key) == wanted {
            return Ok(());
        }
        let left = end.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "{}: {key} is not {wanted} after {limit:?}", cgroup.display());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        if let Err(error) = poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLPRI)], timeout) {
            bail!("poll {}: {error}", path.display());
        }
    }
}

fn event(events: &str, key: &str) -> bool {
    events.lines().any(|line| line.split_once(' ') == Some((key, "1")))
}

fn kib(status: &str, key: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(key));
    value.and_then(|value| value.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_v2_root_pure_and_hybrid() {
        let hybrid = "30 25 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
                      31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      32 30 0:28 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(root_in(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        let pure = "30 25 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(root_in(pure), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(root_in("1 1 0:1 / / rw - ext4 /dev/vda rw\n"), None);
    }

    #[test]
    fn reads_memory_of_a_status_file() {
        let status = "Name:\tx\nVmRSS:\t    1234 kB\nVmSwap:\t       8 kB\n";
        assert_eq!((kib(status, "VmRSS:"), kib(status, "VmSwap:"), kib(status, "VmX:")), (1234, 8, 0));
    }
}
