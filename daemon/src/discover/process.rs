//! A server's processes: who they are, whether they are still the same ones, what they use.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use procfs::ProcError;
use procfs::process::Process;

#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("process {pid} is gone")]
    Gone { pid: i32 },
    #[error("cannot read /proc/{pid}/{file} (CAP_SYS_PTRACE is needed for another user's process)")]
    Proc { pid: i32, file: &'static str, source: ProcError },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} reads {text:?}, which is not what the kernel documents (cgroup-v2.rst)")]
    Malformed { path: PathBuf, text: String },
    #[error(
        "cgroup {cgroup} holds a process of another PID namespace: run the daemon in the host's PID namespace \
         (hostPID: true)"
    )]
    ForeignPids { cgroup: PathBuf },
}

impl ProcessError {
    fn from_proc(pid: i32, file: &'static str, source: ProcError) -> Self {
        match source {
            ProcError::NotFound(_) => Self::Gone { pid },
            _ => Self::Proc { pid, file, source },
        }
    }
}

/// A process that can't be mistaken for a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcessId {
    /// Clock ticks after boot (`/proc/PID/stat`, field 22). First, so that the oldest process sorts first.
    pub start_ticks: u64,
    pub pid: i32,
}

impl ProcessId {
    /// The process that has this number now; a zombie counts as gone.
    pub fn of(pid: i32) -> Result<Self, ProcessError> {
        let stat = open(pid)?.stat().map_err(|source| ProcessError::from_proc(pid, "stat", source))?;
        if matches!(stat.state, 'Z' | 'X') {
            return Err(ProcessError::Gone { pid });
        }
        Ok(Self { pid, start_ticks: stat.starttime })
    }

    pub fn is_alive(self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now == self)
    }

    /// Its parent's number.
    pub fn parent(self) -> Result<i32, ProcessError> {
        open(self.pid)?
            .stat()
            .map(|stat| stat.ppid)
            .map_err(|source| ProcessError::from_proc(self.pid, "stat", source))
    }

    /// When it was started, on the boot clock. The same at every call, unlike a difference to now: it tells a
    /// process from the one that took its place.
    pub fn started(self) -> Duration {
        let ticks = procfs::ticks_per_second();
        Duration::from_millis(self.start_ticks.saturating_mul(1000) / ticks.max(1))
    }

    /// Time since it was started.
    pub fn age(self) -> Result<Duration, ProcessError> {
        let path = PathBuf::from("/proc/uptime");
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ProcessError::Read { path: path.clone(), source })?;
        let uptime = text.split(' ').next().and_then(|word| word.parse().ok());
        let Some(uptime) = uptime.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) else {
            return Err(ProcessError::Malformed { path, text });
        };
        Ok(uptime.saturating_sub(self.started()))
    }

    /// Its command line, empty for a zombie or a kernel thread.
    pub fn cmdline(self) -> Result<Vec<String>, ProcessError> {
        open(self.pid)?.cmdline().map_err(|source| ProcessError::from_proc(self.pid, "cmdline", source))
    }

    /// The path of its program, as its own mount namespace sees it.
    pub fn exe(self) -> Result<PathBuf, ProcessError> {
        open(self.pid)?.exe().map_err(|source| ProcessError::from_proc(self.pid, "exe", source))
    }

    /// Its name (`comm`, at most 15 bytes).
    pub fn comm(self) -> Result<String, ProcessError> {
        open(self.pid)?
            .stat()
            .map(|stat| stat.comm)
            .map_err(|source| ProcessError::from_proc(self.pid, "stat", source))
    }
}

/// A process held by descriptors, since hundreds are looked at every few seconds: whether it has ended is one poll(2),
/// and what waits for it one read of a file that is open already.
#[derive(Debug)]
pub struct Held {
    end: OwnedFd,
    status: File,
}

impl Held {
    /// # Errors
    /// [`ProcessError::Gone`]: it has ended, and its number may be another's.
    pub fn of(process: ProcessId) -> Result<Self, ProcessError> {
        let pid = process.pid;
        // SAFETY: no pointers; a descriptor that is given back is ours alone (pidfd_open(2), Linux 5.3).
        let fd = unsafe {
            let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
            if fd < 0 {
                let source = io::Error::last_os_error();
                return Err(if source.raw_os_error() == Some(libc::ESRCH) {
                    ProcessError::Gone { pid }
                } else {
                    ProcessError::Read { path: format!("pidfd of {pid}").into(), source }
                });
            }
            OwnedFd::from_raw_fd(fd as i32)
        };
        let path = PathBuf::from(format!("/proc/{pid}/status"));
        let status = File::open(&path).map_err(|source| {
            if gone(&source) { ProcessError::Gone { pid } } else { ProcessError::Read { path, source } }
        })?;
        // The number could have become another process's before the descriptors were opened.
        if process.is_alive() { Ok(Self { end: fd, status }) } else { Err(ProcessError::Gone { pid }) }
    }

    /// Whether SIGTERM waits for it, as it does in a frozen cgroup until the thaw (`ShdPnd` of
    /// proc_pid_status(5)). One that has ended is told nothing: the read gives ESRCH.
    pub fn is_told_to_stop(&self) -> bool {
        const SIGTERM: u64 = 1 << (libc::SIGTERM - 1);
        let mut text = [0; 4096];
        let len = self.status.read_at(&mut text, 0).unwrap_or(0);
        let mask = text[..len].split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"ShdPnd:"));
        mask.and_then(|mask| u64::from_str_radix(std::str::from_utf8(mask).ok()?.trim(), 16).ok())
            .is_some_and(|mask| mask & SIGTERM != 0)
    }

    /// A zombie has ended.
    pub fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(self.end.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}

fn open(pid: i32) -> Result<Process, ProcessError> {
    Process::new(pid).map_err(|source| ProcessError::from_proc(pid, "", source))
}

/// All processes of a cgroup and of the cgroups below it (a freeze takes them all).
pub fn cgroup_pids(cgroup: &Path) -> Result<Vec<i32>, ProcessError> {
    let mut pids = Vec::new();
    let mut directories = vec![cgroup.to_owned()];
    while let Some(directory) = directories.pop() {
        let path = directory.join("cgroup.procs");
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                for line in text.lines() {
                    match line.parse() {
                        Ok(0) => return Err(ProcessError::ForeignPids { cgroup: directory }),
                        Ok(pid) => pids.push(pid),
                        Err(_) => return Err(ProcessError::Malformed { path, text: line.to_owned() }),
                    }
                }
            }
            // A threaded cgroup: its processes are listed by the domain above it.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
            // A child that was removed while we walked.
            Err(error) if gone(&error) && directory != cgroup => continue,
            Err(source) => return Err(ProcessError::Read { path, source }),
        }
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if gone(&error) && directory != cgroup => continue,
            Err(source) => return Err(ProcessError::Read { path: directory, source }),
        };
        directories.extend(
            entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
    pids.sort_unstable();
    Ok(pids)
}

fn gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// Whether no process is left in the cgroup or below it. A cgroup that was removed is empty too.
pub fn is_empty(cgroup: &Path) -> Result<bool, ProcessError> {
    let path = cgroup.join("cgroup.events");
    match std::fs::read_to_string(&path) {
        Ok(text) => keyed(&text, "populated")
            .map(|populated| populated == 0)
            .ok_or(ProcessError::Malformed { path, text }),
        Err(error) if gone(&error) => Ok(true),
        Err(source) => Err(ProcessError::Read { path, source }),
    }
}

/// CPU time that the cgroup has used since it was made, dead processes included (`cpu.stat`, there since 4.15
/// even without the cpu controller).
pub fn cpu_time(cgroup: &Path) -> Result<Duration, ProcessError> {
    let path = cgroup.join("cpu.stat");
    let text =
        std::fs::read_to_string(&path).map_err(|source| ProcessError::Read { path: path.clone(), source })?;
    keyed(&text, "usage_usec").map(Duration::from_micros).ok_or(ProcessError::Malformed { path, text })
}

/// The value of one line of a flat-keyed cgroup file.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

/// Resident memory in bytes, shared pages counted once a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    pub total: u64,
    /// Anonymous memory: what a deep server can hand back.
    pub anonymous: u64,
    /// Anonymous memory that is on swap, beside `total`.
    pub swapped: u64,
}

/// The sum over the processes; one that has gone counts nothing.
pub fn resident(pids: &[i32]) -> Result<Resident, ProcessError> {
    let mut sum = Resident::default();
    for &pid in pids {
        let status = open(pid).and_then(|process| {
            process.status().map_err(|source| ProcessError::from_proc(pid, "status", source))
        });
        match status {
            Ok(status) => {
                sum.total += status.vmrss.unwrap_or(0) * 1024;
                sum.anonymous += status.rssanon.unwrap_or(0) * 1024;
                sum.swapped += status.vmswap.unwrap_or(0) * 1024;
            }
            Err(ProcessError::Gone { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sum)
}

#[cfg(fuzzing)]
pub fn fuzz(text: &str) {
    let _ = (keyed(text, "populated"), keyed(text, "usage_usec"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::testing::{Cgroup, Victim, eventually};

    #[test]
    fn a_process_is_known_by_its_start_and_its_death_is_seen() {
        let cgroup = Cgroup::new("process");
        let child = cgroup.child("inner");
        let victim = Victim::sleep_in(&child);
        let id = ProcessId::of(victim.pid()).unwrap();
        assert!(id.is_alive());
        assert!(!ProcessId { start_ticks: id.start_ticks + 1, ..id }.is_alive());
        assert_eq!(id.parent().unwrap(), std::process::id() as i32);
        assert_eq!(id.cmdline().unwrap()[0], "sleep");
        assert_eq!(id.comm().unwrap(), "sleep");
        assert!(id.exe().unwrap().is_absolute());
        assert!(id.age().unwrap() < Duration::from_hours(1));
        assert_eq!(cgroup_pids(cgroup.path()).unwrap(), [victim.pid()]);
        assert!(!is_empty(cgroup.path()).unwrap());
        let resident = resident(&[victim.pid()]).unwrap();
        assert!(resident.anonymous > 0 && resident.anonymous < resident.total);
        assert!(cpu_time(cgroup.path()).is_ok());

        let held = Held::of(id).unwrap();
        assert!(!held.has_ended());
        assert!(matches!(Held::of(ProcessId { start_ticks: 1, ..id }), Err(ProcessError::Gone { .. })));

        let pid = victim.pid();
        drop(victim);
        assert!(!id.is_alive());
        assert!(held.has_ended() && !held.is_told_to_stop());
        assert!(matches!(Held::of(id), Err(ProcessError::Gone { .. })));
        assert!(matches!(ProcessId::of(pid), Err(ProcessError::Gone { .. })));
        assert!(is_empty(cgroup.path()).unwrap());
        assert_eq!(super::resident(&[pid]).unwrap(), Resident::default());
        assert!(is_empty(Path::new("/sys/fs/cgroup/no-such-cgroup")).unwrap());
    }

    #[test]
    fn the_time_that_a_cgroup_uses_is_seen() {
        let cgroup = Cgroup::new("busy");
        let _busy = Victim::busy_in(cgroup.path());
        eventually("the busy process has used 20 ms", || {
            cpu_time(cgroup.path()).unwrap() > Duration::from_millis(20)
        });
    }

    #[test]
    fn a_foreign_pid_and_a_strange_file_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let procs = directory.path().join("cgroup.procs");
        std::fs::write(&procs, "12\n0\n").unwrap();
        let error = cgroup_pids(directory.path()).unwrap_err();
        assert!(error.to_string().contains("hostPID"), "{error}");
        std::fs::write(&procs, "twelve\n").unwrap();
        assert!(cgroup_pids(directory.path()).unwrap_err().to_string().contains("twelve"));
        std::fs::write(directory.path().join("cgroup.events"), "frozen 0\n").unwrap();
        assert!(matches!(is_empty(directory.path()), Err(ProcessError::Malformed { .. })));
    }
}
