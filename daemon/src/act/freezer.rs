//! `cgroup.freeze` of cgroup v2: stops every process of a server at once, and lets them go again.
//!
//! Freezing is asynchronous: the kernel says in `cgroup.events` when the last task has stopped, and wakes a
//! poll(2) for POLLPRI (kernel: Documentation/admin-guide/cgroup-v2.rst, "cgroup.freeze"). Others write the
//! same file (container runtimes, kubelet), so what it holds is read, never assumed.

use std::{
    fs::File,
    io,
    os::{
        fd::AsFd as _,
        unix::fs::{FileExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::failpoint;

/// How long a freeze is waited for unless the caller says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);

const SETTING: &str = "cgroup.freeze";
const EVENTS: &str = "cgroup.events";

/// A cgroup that can be frozen, with its files open, so that the thaw is one write(2).
#[derive(Debug)]
pub struct Freezer {
    cgroup: PathBuf,
    inode: u64,
    setting: File,
    events: File,
}

/// What the kernel says about a cgroup's freezer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreezeState {
    /// The cgroup's own `cgroup.freeze`. An ancestor's counts as well, and is not seen here.
    pub set: bool,
    /// Every task has stopped.
    pub frozen: bool,
    /// The cgroup or one below it has processes.
    pub populated: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    #[error("cgroup {} is gone", cgroup.display())]
    Vanished { cgroup: PathBuf },
    #[error(
        "{} has no {SETTING}: dormouse needs a cgroup v2 below the root of its hierarchy",
        cgroup.display()
    )]
    NotFreezable { cgroup: PathBuf },
    #[error(
        "somebody else froze {} before dormouse did; thaw it there (docker unpause, echo 0 > {SETTING})",
        cgroup.display()
    )]
    FrozenBySomebodyElse { cgroup: PathBuf },
    #[error("somebody else thawed {} while dormouse waited for it to freeze", cgroup.display())]
    ThawedBySomebodyElse { cgroup: PathBuf },
    #[error("{} did not freeze within {waited:?} and was let go again; a task in it cannot be stopped", cgroup.display())]
    FreezeTimeout { cgroup: PathBuf, waited: Duration },
    #[error("{} was let go and is still frozen after {waited:?}", cgroup.display())]
    ThawTimeout { cgroup: PathBuf, waited: Duration },
    #[error("{} stays frozen because {} above it is frozen by somebody else", cgroup.display(), ancestor.display())]
    FrozenByAncestor { cgroup: PathBuf, ancestor: PathBuf },
    #[error("cannot {action} {}/{file}", cgroup.display())]
    Io {
        cgroup: PathBuf,
        file: &'static str,
        action: &'static str,
        #[source]
        source: io::Error,
    },
}

// === impl Freezer ===

impl Freezer {
    /// Opens the freezer of a cgroup, for instance `/sys/fs/cgroup/system.slice/game.service`.
    pub fn open(cgroup: &Path) -> Result<Self, FreezeError> {
        let cgroup = cgroup.to_path_buf();
        let inode = match std::fs::metadata(&cgroup) {
            Ok(directory) => directory.ino(),
            Err(source) => return Err(classify(&cgroup, "", "open", source)),
        };
        let open = |file: &'static str, write: bool| match File::options()
            .read(true)
            .write(write)
            .open(cgroup.join(file))
        {
            Err(source) if source.kind() == io::ErrorKind::NotFound && cgroup.exists() => {
                Err(FreezeError::NotFreezable { cgroup: cgroup.clone() })
            }
            opened => opened.map_err(|source| classify(&cgroup, file, "open", source)),
        };
        let setting = open(SETTING, true)?;
        let events = open(EVENTS, false)?;
        Ok(Self { cgroup, inode, setting, events })
    }

    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The inode of the cgroup's directory: two cgroups of one name never share it.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    pub fn state(&self) -> Result<FreezeState, FreezeError> {
        let setting = self.read(&self.setting, SETTING)?;
        let events = self.read(&self.events, EVENTS)?;
        Ok(FreezeState {
            set: setting.trim() == "1",
            frozen: events.lines().any(|line| line == "frozen 1"),
            populated: events.lines().any(|line| line == "populated 1"),
        })
    }

    /// Freezes, and returns when every task has stopped. On any error the cgroup is let go again, except when
    /// somebody else had frozen it before: that freeze is theirs.
    ///
    /// The waiting reads move the position that poll(2) compares with, hence `&mut`: one waiter a handle.
    pub fn freeze(&mut self, timeout: Duration) -> Result<(), FreezeError> {
        if self.state()?.set {
            return Err(FreezeError::FrozenBySomebodyElse { cgroup: self.cgroup.clone() });
        }
        let frozen = self.write("1").and_then(|()| {
            failpoint::at("freeze-written");
            self.wait_frozen(timeout)
        });
        if frozen.is_err() {
            // The first error is the one to tell; a cgroup that vanished refuses this write too.
            let _ = self.write("0");
        }
        frozen
    }

    /// Lets the tasks go: one write(2). They run as soon as the scheduler finds a CPU; see
    /// [`Self::wait_thawed`].
    pub fn thaw(&self) -> Result<(), FreezeError> {
        self.write("0")
    }

    /// Returns when the kernel says `frozen 0`.
    pub fn wait_thawed(&mut self, timeout: Duration) -> Result<(), FreezeError> {
        let deadline = Instant::now() + timeout;
        loop {
            let state = self.state()?;
            if !state.frozen {
                return Ok(());
            }
            let cgroup = self.cgroup.clone();
            if state.set {
                return Err(FreezeError::FrozenBySomebodyElse { cgroup });
            }
            if let Some(ancestor) = frozen_ancestor(&self.cgroup) {
                return Err(FreezeError::FrozenByAncestor { cgroup, ancestor });
            }
            if !self.wait_change(deadline)? {
                return Err(FreezeError::ThawTimeout { cgroup, waited: timeout });
            }
        }
    }

    fn wait_frozen(&self, timeout: Duration) -> Result<(), FreezeError> {
        let deadline = Instant::now() + timeout;
        loop {
            let state = self.state()?;
            if !state.set {
                return Err(FreezeError::ThawedBySomebodyElse { cgroup: self.cgroup.clone() });
            }
            if state.frozen {
                return Ok(());
            }
            if !self.wait_change(deadline)? {
                return Err(FreezeError::FreezeTimeout { cgroup: self.cgroup.clone(), waited: timeout });
            }
        }
    }

    /// Waits until `cgroup.events` differs from what was read last; false at the deadline.
    fn wait_change(&self, deadline: Instant) -> Result<bool, FreezeError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            // Rounded up: a rest below a millisecond would spin.
            let millis = left.as_millis().saturating_add(1).min(i32::MAX as u128) as i32;
            let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.events.as_fd(), PollFlags::POLLPRI)], timeout) {
                Ok(0) | Err(nix::Error::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(errno) => return Err(classify(&self.cgroup, EVENTS, "poll", errno.into())),
            }
        }
    }

    fn write(&self, value: &str) -> Result<(), FreezeError> {
        self.setting
            .write_all_at(value.as_bytes(), 0)
            .map_err(|source| classify(&self.cgroup, SETTING, "write", source))
    }

    fn read(&self, from: &File, file: &'static str) -> Result<String, FreezeError> {
        let mut buffer = [0; 256];
        let length =
            from.read_at(&mut buffer, 0).map_err(|source| classify(&self.cgroup, file, "read", source))?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }
}

/// The nearest cgroup above this one whose own `cgroup.freeze` is set.
pub fn frozen_ancestor(cgroup: &Path) -> Option<PathBuf> {
    cgroup
        .ancestors()
        .skip(1)
        .find(|above| std::fs::read_to_string(above.join(SETTING)).is_ok_and(|setting| setting.trim() == "1"))
        .map(Path::to_path_buf)
}

/// A cgroup that was removed answers ENOENT by path and ENODEV by an open file (kernfs).
fn classify(cgroup: &Path, file: &'static str, action: &'static str, source: io::Error) -> FreezeError {
    let cgroup = cgroup.to_path_buf();
    match source.raw_os_error() {
        Some(libc::ENODEV | libc::ENOENT) => FreezeError::Vanished { cgroup },
        _ => FreezeError::Io { cgroup, file, action, source },
    }
}

#[cfg(test)]
mod tests;
