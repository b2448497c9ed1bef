//! What a process costs: its memory by a cgroup of its own, kernel memory and BPF maps included, and its CPU time.
//!
//! The bench machines' memory controller is on cgroup v1 in hybrid mode; the product never touches that, this only
//! weighs it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{cgroup, owner};

/// A cgroup with a memory controller, on v2 where it is there, else on v1.
pub struct Scale {
    path: PathBuf,
    usage: &'static str,
}

impl Scale {
    /// # Errors
    /// Neither hierarchy has the memory controller.
    pub fn new() -> Result<Self> {
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let (root, usage) = if v1.join("memory.usage_in_bytes").exists() {
            (v1.to_owned(), "memory.usage_in_bytes")
        } else {
            let root = cgroup::root()?;
            fs::write(root.join("cgroup.subtree_control"), "+memory").context("no memory controller")?;
            (root, "memory.current")
        };
        let path = root.join(owner::unique("scale"));
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self { path, usage })
    }

    /// The command, run inside: a shell that moves itself and becomes the program.
    pub fn put(&self, command: &Command) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo $$ >\"$0\" && exec \"$@\""]).arg(self.path.join("cgroup.procs"));
        shell.arg(command.get_program()).args(command.get_args());
        shell
    }

    /// Bytes charged now.
    ///
    /// # Errors
    /// The cgroup is gone.
    pub fn bytes(&self) -> Result<u64> {
        let text = fs::read_to_string(self.path.join(self.usage))?;
        text.trim().parse().context("a number of bytes")
    }

    /// `memory.stat`, for people.
    pub fn told(&self) -> String {
        fs::read_to_string(self.path.join("memory.stat")).unwrap_or_default()
    }
}

impl Drop for Scale {
    fn drop(&mut self) {
        // The processes end with their owner; the kernel may need a moment.
        let until = Instant::now() + Duration::from_secs(5);
        while let Err(error) = fs::remove_dir(&self.path) {
            if Instant::now() > until {
                return eprintln!("bench: remove {}: {error}", self.path.display());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// CPU time that a process has used, its ended threads included (proc_pid_stat(5), fields 14 and 15).
///
/// # Errors
/// It is gone.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, after) = stat.rsplit_once(')').context("a process's stat")?;
    let ticks = after.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    // USER_HZ is 100 on every architecture that this runs on.
    Ok(Duration::from_millis(ticks * 10))
}
