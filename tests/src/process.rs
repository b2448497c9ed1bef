//! Processes of the bench: started inside a namespace and a cgroup, output kept, killed on drop.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::cgroup::Cgroup;
use crate::netns::Netns;
use crate::owner;

/// Where a process runs; `None` means where the test itself runs.
#[derive(Clone, Copy, Default)]
pub struct Place<'a> {
    pub netns: Option<&'a Netns>,
    pub cgroup: Option<&'a Cgroup>,
}

impl<'a> Place<'a> {
    pub fn new(netns: &'a Netns, cgroup: &'a Cgroup) -> Self {
        Self { netns: Some(netns), cgroup: Some(cgroup) }
    }

    pub fn netns(netns: &'a Netns) -> Self {
        Self { netns: Some(netns), cgroup: None }
    }

    /// Runs `f` inside this place's namespace.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        match self.netns {
            Some(netns) => netns.run(f),
            None => f(),
        }
    }
}

/// A running program; its whole process group is killed on drop.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    _dir: TempDir,
}

impl Process {
    /// Starts `command` with no stdin; stdout and stderr go to one log.
    pub fn spawn(name: &str, mut command: Command, place: Place<'_>) -> Result<Self> {
        let dir = owner::temp_dir("log")?;
        let log = dir.path().join("log");
        let out = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).process_group(0);
        settle_in(&mut command, place)?;
        let child = command.spawn().with_context(|| format!("start {name} ({command:?})"))?;
        Ok(Self { name: name.to_owned(), child, log, _dir: dir })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// All it printed so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// How it ended; `None` while it runs.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("wait for {}", self.name))
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        nix::sys::signal::kill(Pid::from_raw(self.child.id().cast_signed()), signal)
            .with_context(|| format!("send {signal} to {}", self.name))
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.exited()? {
                return Ok(status);
            }
            if Instant::now() > end {
                bail!("{} still runs after {limit:?}; it printed:\n{}", self.name, self.log());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks `ready` again and again until it answers; its last error, and the log, are in the error.
    pub fn wait_until<T>(&mut self, limit: Duration, mut ready: impl FnMut() -> Result<T>) -> Result<T> {
        let end = Instant::now() + limit;
        loop {
            let error = match ready() {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if let Some(status) = self.exited()? {
                bail!("{} ended with {status} before it answered; it printed:\n{}", self.name, self.log());
            }
            if Instant::now() > end {
                return Err(error.context(format!(
                    "{} doesn't answer after {limit:?}; it printed:\n{}",
                    self.name,
                    self.log()
                )));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // ESRCH means it has just ended by itself.
            let _ = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
        }
        if let Err(error) = self.child.wait() {
            eprintln!("bench: wait for {}: {error}", self.name);
        }
        if thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(4000);
            let tail = log.get(from..).unwrap_or(&log);
            eprintln!("--- the last {} printed:\n{tail}\n---", self.name);
        }
    }
}

/// "what ended it" in words, for messages of tests.
pub fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown end".to_owned(),
    }
}

/// Puts the child into its cgroup and namespace between fork and exec, so that nothing of it ever ran outside.
fn settle_in(command: &mut Command, place: Place<'_>) -> Result<()> {
    let netns: Option<OwnedFd> = place.netns.map(|netns| netns.as_fd().try_clone_to_owned()).transpose()?;
    let procs: Option<File> = place
        .cgroup
        .map(|cgroup| {
            let path = cgroup.path().join("cgroup.procs");
            OpenOptions::new().write(true).open(&path).with_context(|| format!("open {}", path.display()))
        })
        .transpose()?;
    let enter = move || -> io::Result<()> {
        if let Some(mut procs) = procs.as_ref() {
            procs.write_all(b"0")?;
        }
        if let Some(netns) = &netns {
            setns(netns, CloneFlags::CLONE_NEWNET)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes only the system calls write(2) and setns(2) on
    // descriptors opened before; it allocates nothing and takes no lock (io::Error from errno doesn't allocate).
    unsafe { command.pre_exec(enter) };
    Ok(())
}
