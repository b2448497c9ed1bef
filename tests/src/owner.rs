//! Names of what the bench makes on the machine, and clearing away what a crashed run left.
//!
//! Every namespace, cgroup and temporary directory is called `dmt-PID-START-N-ROLE`; PID and START (the process's start time in
//! clock ticks since boot, proc(5)) say whose it is, so that one run never removes what another still uses.

use std::env;
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use tempfile::TempDir;

const PREFIX: &str = "dmt";

/// A name no other run and no other thing of this run has.
pub fn unique(role: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let pid = std::process::id();
    let start = start_time(pid).unwrap_or(0);
    format!("{PREFIX}-{pid}-{start}-{}-{role}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// True for a name of ours whose run has ended.
pub fn is_leftover(name: &str) -> bool {
    let Some((pid, start)) = parse(name) else { return false };
    start_time(pid) != Some(start)
}

/// True for a name that this process made.
pub fn is_mine(name: &str) -> bool {
    parse(name).is_some_and(|(pid, _)| pid == std::process::id())
}

fn parse(name: &str) -> Option<(u32, u64)> {
    let mut parts = name.split('-');
    if parts.next()? != PREFIX {
        return None;
    }
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Field 22 of /proc/PID/stat; the command in field 2 may hold blanks and parentheses. None for a process that has
/// ended, also when nobody has asked for its exit status yet (state Z or X).
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_command) = stat.rsplit_once(')')?;
    let mut fields = after_command.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// A directory of ours for temporary files, removed with the returned value.
pub fn temp_dir(role: &str) -> Result<TempDir> {
    TempDir::with_prefix(format!("{}-", unique(role))).context("make a directory for temporary files")
}

/// Removes the namespaces, cgroups and temporary directories, with all processes in them, of runs that have ended.
pub fn sweep() {
    crate::cgroup::sweep();
    crate::netns::sweep();
    crate::swap::sweep();
    sweep_pins();
    let dirs = fs::read_dir(env::temp_dir()).into_iter().flatten().flatten();
    for dir in dirs.filter(|dir| dir.file_name().to_str().is_some_and(is_leftover)) {
        if let Err(error) = fs::remove_dir_all(dir.path()) {
            eprintln!("bench: remove {}: {error}", dir.path().display());
        }
    }
}

/// BPF pins of daemons that were killed with their run.
fn sweep_pins() {
    let pins = fs::read_dir("/sys/fs/bpf").into_iter().flatten().flatten();
    for dir in pins.filter(|dir| dir.file_name().to_str().is_some_and(is_leftover)) {
        let _ = fs::remove_dir_all(dir.path());
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn a_live_run_is_not_a_leftover() {
        let name = unique("x");
        assert!(!is_leftover(&name));
        assert!(is_mine(&name));
    }

    #[test]
    fn a_zombie_has_ended() {
        let mut child = Command::new("true").spawn().unwrap();
        let name = format!("dmt-{}-{}-0-x", child.id(), start_time(child.id()).unwrap_or(0));
        waitid(Id::Pid(Pid::from_raw(child.id().cast_signed())), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
            .unwrap();
        assert!(is_leftover(&name));
        child.wait().unwrap();
    }

    #[test]
    fn a_dead_or_reused_pid_is_a_leftover() {
        assert!(is_leftover("dmt-4194305-1-0-node"));
        assert!(is_leftover("dmt-1-123456789-0-node"), "pid 1 started at another time");
        assert!(!is_leftover("docker-1-2-3"));
    }
}
