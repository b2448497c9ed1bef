//! What a selector names right now: a server's cgroup and processes. A restart changes the answer: resolve again.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::command::{self, CommandError};
use super::mounts::CgroupRoot;
use super::process::{ProcessError, ProcessId, cgroup_pids};
use super::selector::Selector;

/// Names listed in an error; more help nobody.
const NEARBY: usize = 12;

/// A server as it runs now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its cgroup's directory, absolute.
    pub cgroup: PathBuf,
    /// Every process in it and below it, ascending.
    pub pids: Vec<i32>,
    /// The container's or unit's main process; of a cgroup the oldest one.
    pub main: ProcessId,
    /// It shares the daemon's own network namespace.
    pub host_network: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("{selector} matches no cgroup; {parent} holds {nearby}")]
    NoMatch { selector: Selector, parent: PathBuf, nearby: Names },
    #[error("{selector} matches {} cgroups ({matches}), a server is one: name it exactly", matches.0.len())]
    SeveralMatch { selector: Selector, matches: Names },
    #[error("{selector} is not running: {what} has no process; start it first")]
    NotRunning { selector: Selector, what: String },
    #[error("{selector}: systemd knows no such unit (see `systemctl list-units --type=service`)")]
    NoSuchUnit { selector: Selector },
    #[error("{selector} can't be looked up")]
    Tool { selector: Selector, source: CommandError },
    #[error("{selector}: {program} answered {answer:?} where a process id was expected")]
    Answer { selector: Selector, program: &'static str, answer: String },
    #[error("{selector} is refused: {why}")]
    Refused { selector: Selector, why: Refusal },
    #[error("{selector}")]
    Process { selector: Selector, source: ProcessError },
    #[error("{selector}: cannot read {path}")]
    Read { selector: Selector, path: PathBuf, source: io::Error },
}

/// Why a cgroup may not be put to sleep at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "it runs in the root cgroup, which can't be frozen: give it one of its own (systemd unit, container, or \
         `mkdir CGROUP; echo PID > CGROUP/cgroup.procs`)"
    )]
    Root,
    #[error("its cgroup {0} holds pid 1: freezing it would stop the machine")]
    Init(PathBuf),
    #[error("its cgroup {0} holds dormouse itself: freezing it would leave nobody to wake it")]
    Ourselves(PathBuf),
    #[error(
        "its cgroup {0} is shared with the container runtime that started it (cgroup v1 or `--cgroups=disabled`): \
         give the container a cgroup v2 of its own"
    )]
    SharedWithRuntime(PathBuf),
    #[error("its cgroup {0} lies outside of the daemon's cgroup namespace: run the daemon in the host's")]
    OutsideNamespace(String),
}

/// A list of names for a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no cgroup");
        }
        f.write_str(&self.0.iter().take(NEARBY).map(String::as_str).collect::<Vec<_>>().join(", "))?;
        match self.0.len().saturating_sub(NEARBY) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl Selector {
    /// What the selector names right now.
    pub fn resolve(&self, root: &CgroupRoot) -> Result<Found, ResolveError> {
        let (cgroup, main) = match self {
            Self::Cgroup(glob) => (self.only_match(root, glob)?, None),
            Self::Unit(name) => self.unit(root, name)?,
            Self::Docker(name) => self.container(root, "docker", name)?,
            Self::Podman(name) => self.container(root, "podman", name)?,
            Self::Pid(pid) => {
                let main = self.process(*pid)?;
                (self.cgroup_of(root, *pid)?, Some(main))
            }
        };
        self.checked(root, cgroup, main)
    }

    /// All cgroups that the glob matches and that have a process, in order of their names: each is a server.
    /// Every other selector names one server and has nothing to list.
    pub fn matches(&self, root: &CgroupRoot) -> Vec<PathBuf> {
        let Self::Cgroup(glob) = self else { return Vec::new() };
        let mut running = directories(root, glob);
        // What can't be read stays: to resolve it says why.
        running.retain(|directory| !cgroup_pids(directory).is_ok_and(|pids| pids.is_empty()));
        running
    }

    fn only_match(&self, root: &CgroupRoot, glob: &str) -> Result<PathBuf, ResolveError> {
        let all = directories(root, glob);
        if all.is_empty() {
            let (parent, nearby) = nearby(root, glob);
            return Err(ResolveError::NoMatch { selector: self.clone(), parent, nearby });
        }
        let mut running = self.matches(root);
        match (running.pop(), running.is_empty()) {
            (Some(only), true) => Ok(only),
            (Some(last), false) => {
                running.push(last);
                let matches = Names(running.iter().map(|path| below(root, path)).collect());
                Err(ResolveError::SeveralMatch { selector: self.clone(), matches })
            }
            (None, _) => {
                let what = Names(all.iter().map(|path| below(root, path)).collect()).to_string();
                Err(ResolveError::NotRunning { selector: self.clone(), what })
            }
        }
    }

    fn unit(&self, root: &CgroupRoot, name: &str) -> Result<(PathBuf, Option<ProcessId>), ResolveError> {
        let arguments = ["show", "--property=LoadState,ControlGroup,MainPID", "--", name];
        let answer = self.tool(OsStr::new("systemctl"), &arguments)?;
        let (cgroup, main) = self.read_unit(&answer)?;
        // A oneshot or forking unit may have no main process: then the oldest one speaks for it.
        let main = main.map(|pid| self.process(pid)).transpose()?;
        Ok((root.join(&cgroup), main))
    }

    /// `systemctl show`'s answer: the unit's cgroup, its main process.
    fn read_unit(&self, answer: &str) -> Result<(String, Option<i32>), ResolveError> {
        let property = |name: &str| {
            answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
        };
        if property("LoadState") == "not-found" {
            return Err(ResolveError::NoSuchUnit { selector: self.clone() });
        }
        match property("ControlGroup") {
            "" => Err(ResolveError::NotRunning { selector: self.clone(), what: "the unit".to_owned() }),
            cgroup => {
                let main = property("MainPID").parse().ok().filter(|&pid| pid > 0);
                Ok((cgroup.to_owned(), main))
            }
        }
    }

    fn container(
        &self,
        root: &CgroupRoot,
        program: &'static str,
        name: &str,
    ) -> Result<(PathBuf, Option<ProcessId>), ResolveError> {
        let arguments = ["inspect", "--type", "container", "-f", "{{.State.Pid}}", "--", name];
        let answer = match program {
            "podman" => command::run_as_root(OsStr::new(program), &arguments),
            _ => command::run(OsStr::new(program), &arguments),
        };
        let answer = answer.map_err(|source| ResolveError::Tool { selector: self.clone(), source })?;
        let pid = self.read_pid(program, &answer)?;
        let main = self.process(pid)?;
        let cgroup = self.cgroup_of(root, pid)?;
        let parent = main.parent().map_err(|source| self.process_error(source))?;
        if cgroup != root.path && self.pids_in(&cgroup)?.contains(&parent) {
            return Err(self.refuse(Refusal::SharedWithRuntime(cgroup)));
        }
        Ok((cgroup, Some(main)))
    }

    /// `State.Pid` of docker and podman; 0 is a container that doesn't run.
    fn read_pid(&self, program: &'static str, answer: &str) -> Result<i32, ResolveError> {
        match answer.trim().parse() {
            Ok(0) => {
                Err(ResolveError::NotRunning { selector: self.clone(), what: "the container".to_owned() })
            }
            Ok(pid) if pid > 0 => Ok(pid),
            _ => Err(ResolveError::Answer {
                selector: self.clone(),
                program,
                answer: answer.trim().chars().take(80).collect(),
            }),
        }
    }

    fn tool(&self, program: &OsStr, arguments: &[&str]) -> Result<String, ResolveError> {
        command::run(program, arguments)
            .map_err(|source| ResolveError::Tool { selector: self.clone(), source })
    }

    fn process(&self, pid: i32) -> Result<ProcessId, ResolveError> {
        ProcessId::of(pid).map_err(|source| self.process_error(source))
    }

    fn pids_in(&self, cgroup: &Path) -> Result<Vec<i32>, ResolveError> {
        cgroup_pids(cgroup).map_err(|source| self.process_error(source))
    }

    fn process_error(&self, source: ProcessError) -> ResolveError {
        ResolveError::Process { selector: self.clone(), source }
    }

    fn refuse(&self, why: Refusal) -> ResolveError {
        ResolveError::Refused { selector: self.clone(), why }
    }

    /// The v2 line of `/proc/PID/cgroup` (`0::/path`).
    fn cgroup_of(&self, root: &CgroupRoot, pid: i32) -> Result<PathBuf, ResolveError> {
        let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
        let text = std::fs::read_to_string(&path).map_err(|source| match source.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH) => self.process_error(ProcessError::Gone { pid }),
            _ => ResolveError::Read { selector: self.clone(), path, source },
        })?;
        let cgroup = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
        if cgroup.split('/').any(|part| part == "..") {
            return Err(self.refuse(Refusal::OutsideNamespace(cgroup.to_owned())));
        }
        Ok(root.join(cgroup))
    }

    fn checked(
        &self,
        root: &CgroupRoot,
        cgroup: PathBuf,
        main: Option<ProcessId>,
    ) -> Result<Found, ResolveError> {
        if cgroup.components().eq(root.path.components()) {
            return Err(self.refuse(Refusal::Root));
        }
        let pids = self.pids_in(&cgroup)?;
        if pids.contains(&1) {
            return Err(self.refuse(Refusal::Init(cgroup)));
        }
        if pids.contains(&(std::process::id() as i32)) {
            return Err(self.refuse(Refusal::Ourselves(cgroup)));
        }
        let oldest = || pids.iter().filter_map(|&pid| ProcessId::of(pid).ok()).min();
        let Some(main) = main.or_else(oldest) else {
            return Err(ResolveError::NotRunning { selector: self.clone(), what: below(root, &cgroup) });
        };
        let host_network = self.namespace(main.pid)? == self.namespace(std::process::id() as i32)?;
        Ok(Found { cgroup, pids, main, host_network })
    }

    /// Device and inode of the network namespace, which name it (namespaces(7)).
    fn namespace(&self, pid: i32) -> Result<(u64, u64), ResolveError> {
        let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
        match std::fs::metadata(&path) {
            Ok(metadata) => Ok((metadata.dev(), metadata.ino())),
            Err(source) if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {
                Err(self.process_error(ProcessError::Gone { pid }))
            }
            Err(source) => Err(ResolveError::Read { selector: self.clone(), path, source }),
        }
    }
}

/// The cgroups that a glob matches.
pub(super) fn directories(root: &CgroupRoot, glob: &str) -> Vec<PathBuf> {
    let pattern = format!("{}{glob}", glob::Pattern::escape(&root.path.to_string_lossy()));
    let options = glob::MatchOptions { require_literal_separator: true, ..Default::default() };
    // The pattern was checked when the selector was read; a directory that can't be read is not there.
    let Ok(paths) = glob::glob_with(&pattern, options) else { return Vec::new() };
    paths.flatten().filter(|path| path.is_dir()).collect()
}

/// A cgroup's path as an operator writes it.
fn below(root: &CgroupRoot, path: &Path) -> String {
    path.strip_prefix(&root.path)
        .map_or_else(|_| path.display().to_string(), |path| format!("/{}", path.display()))
}

/// The deepest directory on the glob's way that exists, and what it holds.
fn nearby(root: &CgroupRoot, glob: &str) -> (PathBuf, Names) {
    let mut parent = root.path.clone();
    for part in glob.split('/').filter(|part| !part.is_empty()) {
        let next = parent.join(part);
        if !next.is_dir() {
            break;
        }
        parent = next;
    }
    let mut names: Vec<_> = std::fs::read_dir(&parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| below(root, &entry.path()))
        .collect();
    names.sort_unstable();
    (parent, Names(names))
}

#[cfg(test)]
mod tests;
