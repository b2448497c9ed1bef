//! How may a server sleep, and did it survive its wake? What is found out just before a doze (is the world on
//! disk, would the game's watchdog kill it, who is connected to it) and just after a wake (the canary).
//!
//! All that a server shows of itself is hostile: its files are opened through its own root, never waited for,
//! never read without an end, and never shown as they are.

pub mod canary;
pub mod hooks;
pub mod outbound;
mod root;
mod save;
mod settings;
#[cfg(test)]
mod testing;
mod watchdog;

#[cfg(fuzzing)]
pub use canary::fuzz_status;
#[cfg(fuzzing)]
pub use hooks::fuzz_rcon;
#[cfg(fuzzing)]
pub use settings::look_up as fuzz_settings;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use crate::agent::clock::boot_now;
use crate::config::{Hook, Save as SaveRule, Server};
use crate::discover::process::ProcessId;
use crate::discover::resolve::Found;
use crate::discover::sockets::{Sockets, inodes};
use crate::stage::{Evidence, Save, Watchdog};
use hooks::Moment;
use root::ServerRoot;
use save::Newest;
use watchdog::WatchdogFound;

/// Between two looks at the files of a save.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// For one look at a few small files.
const LOOK_WITHIN: Duration = Duration::from_secs(5);
/// Letters of a text that the server wrote, in a sentence for people.
const MOST_SHOWN: usize = 80;

/// What was found, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceDetails {
    pub save: SaveDetails,
    /// `off (max-tick-time=-1)`.
    pub watchdog: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SaveDetails {
    Saved {
        /// Boot clock.
        at: Duration,
        /// `RCON save-all`, `worlds/map.sqlite closed`.
        by: String,
        /// How long the hook ran, or the file was waited for.
        took: Duration,
    },
    NotNeeded {
        reason: String,
    },
    /// There is no freeze.
    Missing {
        reason: String,
    },
}

/// Gathers what is to be known before a doze, in `save_wait` or little more; dropped half-way, it ends a hook
/// that runs.
///
/// `sockets` are the server's own; `last_player` is on the boot clock, and without one any save counts, however
/// old. `run_hook` is false in mode observe: nothing is touched.
pub async fn gather(
    server: &Server,
    found: &Found,
    sockets: &Sockets,
    last_player: Option<Duration>,
    run_hook: bool,
) -> (Evidence, EvidenceDetails) {
    let deadline = Instant::now() + server.limits.save_wait;
    let look = Look {
        server,
        pids: &found.pids,
        root: open_root(found, sockets, server).await,
        last_player,
        deadline,
    };
    let watchdog = look.watchdog().await;
    let (save, save_details) = look.save(run_hook).await;
    let evidence = Evidence {
        save,
        watchdog: watchdog.state,
        outbound: outbound::look(server, sockets),
        watchdog_cure: watchdog.cure,
    };
    (evidence, EvidenceDetails { save: save_details, watchdog: watchdog.text })
}

/// The server's process's root, or why it can't be seen.
type Root = Result<(Arc<ServerRoot>, ProcessId), String>;

async fn open_root(found: &Found, sockets: &Sockets, server: &Server) -> Root {
    let ports = if server.file.ports.is_empty() {
        server.profile.ports.iter().map(|port| port.port).collect::<Vec<_>>()
    } else {
        server.file.ports.iter().map(|own| own.port.port).collect()
    };
    let (found, sockets) = (found.clone(), sockets.clone());
    let open = move || {
        let process = server_process(&found, &sockets, &ports);
        ServerRoot::of(process).map(|root| (Arc::new(root), process)).map_err(|error| in_full(&error))
    };
    blocking(open).await?
}

/// The process that has the server's sockets: the main one may be no more than a script around it, at work in
/// another directory.
fn server_process(found: &Found, sockets: &Sockets, ports: &[u16]) -> ProcessId {
    let on = |port: u16| ports.is_empty() || ports.contains(&port);
    let listeners =
        sockets.listeners.iter().filter(|socket| on(socket.local.port())).map(|socket| socket.inode);
    let udp = sockets.udp.iter().filter(|socket| on(socket.local.port())).map(|socket| socket.inode);
    let wanted: HashSet<u64> = listeners.chain(udp).collect();
    let has = |pid: i32| inodes(&[pid]).is_ok_and(|own| !own.is_disjoint(&wanted));
    if has(found.main.pid) {
        return found.main;
    }
    let other = found.pids.iter().find(|&&pid| has(pid));
    other.and_then(|&pid| ProcessId::of(pid).ok()).unwrap_or(found.main)
}

struct Look<'a> {
    server: &'a Server,
    pids: &'a [i32],
    root: Root,
    last_player: Option<Duration>,
    deadline: Instant,
}

impl Look<'_> {
    async fn watchdog(&self) -> WatchdogFound {
        let checks = match watchdog::without_looking(self.server) {
            Ok(known) => return known,
            Err(checks) => checks.to_vec(),
        };
        let looked = match &self.root {
            Ok((root, process)) => {
                let (root, process) = (Arc::clone(root), *process);
                let look = move || {
                    let age = process.age().map_err(|error| in_full(&error))?;
                    Ok(watchdog::look(&root, &checks, age))
                };
                blocking(look).await.and_then(|looked| looked)
            }
            Err(why) => Err(why.clone()),
        };
        looked.unwrap_or_else(|why| WatchdogFound {
            state: Watchdog::Unknown,
            text: format!("unknown ({why})"),
            cure: None,
        })
    }

    async fn save(&self, run_hook: bool) -> (Save, SaveDetails) {
        let hook = self.server.file.hooks.before_doze.as_ref();
        match (hook, self.server.save_files()) {
            (Some(hook), files) if run_hook => {
                let (save, details) = self.save_by_hook(hook).await;
                match (save, files) {
                    (Save::Saved { .. }, None) => self.not_needed(),
                    (save, _) => (save, details),
                }
            }
            (_, None) => self.not_needed(),
            (Some(hook), Some(_)) => {
                let reason =
                    format!("{} is not run while dormouse only observes", hooks::describe(&hook.action));
                (Save::NotTried, SaveDetails::Missing { reason })
            }
            (None, Some([])) => {
                (Save::NoEvidence, SaveDetails::Missing { reason: self.nothing_to_look_at() })
            }
            (None, Some(files)) => self.save_by_files(files).await,
        }
    }

    fn not_needed(&self) -> (Save, SaveDetails) {
        let reason = match &self.server.file.assertions.save_not_needed {
            Some(reason) => format!("says its operator ({reason})"),
            None => format!("a game of profile {} has nothing to save", self.server.profile.name),
        };
        (Save::NotNeeded, SaveDetails::NotNeeded { reason })
    }

    fn nothing_to_look_at(&self) -> String {
        let hint = match &self.server.profile.save {
            SaveRule::Evidence { command: Some(command), .. } => {
                format!(" (the game's own command is {:?})", command.command)
            }
            _ => String::new(),
        };
        format!("it has neither a before_doze hook{hint} nor save_files")
    }

    async fn save_by_hook(&self, hook: &Hook) -> (Save, SaveDetails) {
        // What a player does while the world is being saved may not be in it.
        let (at, started) = (boot_now(), Instant::now());
        let hook = Hook { timeout: hook.timeout.min(self.deadline - started), ..hook.clone() };
        let by = hooks::describe(&hook.action);
        match hooks::run(&hook, self.server.name(), Moment::BeforeDoze).await {
            Ok(()) => (Save::Saved { at }, SaveDetails::Saved { at, by, took: started.elapsed() }),
            Err(error) => failed(error.to_string()),
        }
    }

    async fn save_by_files(&self, files: &[glob::Pattern]) -> (Save, SaveDetails) {
        let root = match &self.root {
            Ok((root, _)) => root,
            Err(why) => return failed(why.clone()),
        };
        let started = Instant::now();
        let patterns = || files.iter().map(glob::Pattern::as_str).collect::<Vec<_>>().join(", ");
        loop {
            let (root, files, pids) = (Arc::clone(root), files.to_vec(), self.pids.to_vec());
            let newest = match blocking(move || save::look(&root, &files, &pids)).await {
                Ok(newest) => newest,
                Err(why) => return failed(why),
            };
            let late = Instant::now() >= self.deadline;
            match newest {
                Newest::Written { at, name } => {
                    let by = format!("{name} closed");
                    if self.last_player.is_none_or(|player| at >= player) {
                        let took = started.elapsed();
                        return (Save::Saved { at }, SaveDetails::Saved { at, by, took });
                    }
                    if late {
                        let reason = format!("{name} was last written before the last player was here");
                        return (Save::Saved { at }, SaveDetails::Missing { reason });
                    }
                }
                Newest::Open { name } if late => return failed(format!("{name} is still open for writing")),
                Newest::None if late => {
                    let reason = format!("no file matches its save_files ({})", patterns());
                    return (Save::NoEvidence, SaveDetails::Missing { reason });
                }
                Newest::Open { .. } | Newest::None => {}
            }
            sleep_until(self.deadline.min(Instant::now() + LOOK_EVERY)).await;
        }
    }
}

fn failed(reason: String) -> (Save, SaveDetails) {
    (Save::Failed { reason: reason.clone() }, SaveDetails::Missing { reason })
}

/// Work that may block, on a thread of its own; one that never ends (a file system of the server's own making)
/// is left to itself.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    match timeout(LOOK_WITHIN, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(format!("looking at it failed: {error}")),
        Err(_) => Err("its files don't answer".to_owned()),
    }
}

/// An error with its sources, on one line.
fn in_full(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |source| source.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

/// A text of a stranger's, fit for a terminal and a sentence.
fn shown(text: &str) -> String {
    let mut letters = text.chars();
    let clean: String = letters
        .by_ref()
        .take(MOST_SHOWN)
        .map(|letter| if letter.is_control() { '·' } else { letter })
        .collect();
    if letters.next().is_some() { clean + "…" } else { clean }
}

#[cfg(test)]
mod tests;
