//! What a server touched after its last wakes: the pages that the next wake brings back. Kept across restarts
//! of the daemon, dropped when the process is another one.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::Path;

use procfs::process::Process;

use super::pagemap::{Pagemap, State};
use super::ranges::{self, Span};
use super::{Error, Result, regions};

/// A wake's own set counts for the next three.
const WAKES: usize = 3;
/// Every eighth wake learns anew, so that pages no longer used fall out.
const LEARN_EVERY: u32 = 8;
/// Spans kept of one wake (16 bytes each). A more scattered set is rounded up over small gaps.
const MAX_SPANS: usize = 64 << 10;

/// One process, and not a later one with its pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct ProcessKey {
    pub pid: i32,
    /// In clock ticks since boot (field 22 of /proc/PID/stat).
    pub start_time: u64,
}

impl ProcessKey {
    /// # Errors
    /// [`Error::Gone`] if there is no such process.
    pub fn of(pid: i32) -> Result<Self> {
        let stat = Process::new(pid).and_then(|p| p.stat()).map_err(|_| Error::Gone { pid })?;
        Ok(Self { pid, start_time: stat.starttime })
    }
}

/// How a wake is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Pages are brought back mapped. What it touches of them can't be told afterwards.
    Mapped,
    /// Pages are brought back to the swap cache only: mapped is then exactly what was touched.
    Learning,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct History {
    /// The newest last.
    wakes: VecDeque<Vec<Span>>,
    /// Wakes since the last learning one.
    since_learning: u32,
}

/// The working sets of one server's processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkingSets {
    processes: BTreeMap<ProcessKey, History>,
}

impl WorkingSets {
    /// The pages to bring back: what any of the last wakes touched. `None` = never recorded.
    pub fn get(&self, process: ProcessKey) -> Option<Vec<Span>> {
        let history = self.processes.get(&process)?;
        Some(ranges::joined(history.wakes.iter().flatten().copied().collect(), 0))
    }

    /// How the next wake should be done: the first and every eighth learn.
    pub fn next_wake(&self) -> Wake {
        let due = |h: &History| h.wakes.is_empty() || h.since_learning + 1 >= LEARN_EVERY;
        if self.processes.is_empty() || self.processes.values().any(due) {
            Wake::Learning
        } else {
            Wake::Mapped
        }
    }

    /// Records what is mapped of one process now, some seconds after its wake.
    ///
    /// # Errors
    /// [`Error::Gone`], or missing rights.
    pub fn record(&mut self, pid: i32, wake: Wake) -> Result<()> {
        let process = ProcessKey::of(pid)?;
        let anonymous = regions::anonymous(pid)?;
        let present = Pagemap::open(pid)?.pages(State::Present, &anonymous)?;
        self.add(process, wake, present);
        Ok(())
    }

    fn add(&mut self, process: ProcessKey, wake: Wake, present: Vec<Span>) {
        let known = self.get(process).unwrap_or_default();
        let history = self.processes.entry(process).or_default();
        if let (Wake::Mapped, Some(newest)) = (wake, history.wakes.back_mut()) {
            // What was brought back mapped says nothing; only what came on top was asked for.
            *newest = bounded(ranges::union(newest, &ranges::difference(&present, &known)));
            history.since_learning += 1;
        } else {
            history.wakes.push_back(bounded(present));
            history.since_learning = 0;
        }
        while history.wakes.len() > WAKES {
            history.wakes.pop_front();
        }
    }

    /// Forgets processes that ended or are others now.
    pub fn retain_living(&mut self) {
        self.processes.retain(|key, _| ProcessKey::of(key.pid).is_ok_and(|now| now == *key));
    }

    /// Writes the file whole or not at all.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let processes = self.processes.iter();
        let stored = Stored {
            boot: boot_id()?,
            processes: processes.map(|(key, history)| (*key, history.clone())).collect(),
        };
        let next = path.with_extension("next");
        let write = || -> io::Result<()> {
            fs::write(&next, serde_json::to_vec(&stored)?)?;
            fs::rename(&next, path)
        };
        write().map_err(|source| Error::Write { path: path.to_owned(), source })
    }

    /// Reads what an earlier daemon saved, less the processes that are gone. No file, and a file that can't be
    /// understood or is of another boot, are an empty record: the next wake learns.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = match fs::read(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other.map_err(Error::read(path))?,
        };
        let stored = match serde_json::from_slice::<Stored>(&bytes) {
            Ok(stored) if stored.boot == boot_id()? => stored,
            Ok(_) => return Ok(Self::default()),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "working sets unreadable: learning anew");
                return Ok(Self::default());
            }
        };
        let mut sets = Self { processes: stored.processes.into_iter().collect() };
        sets.retain_living();
        Ok(sets)
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Stored {
    boot: String,
    processes: Vec<(ProcessKey, History)>,
}

fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(fs::read_to_string(path).map_err(Error::read(path))?.trim().to_owned())
}

/// Closes gaps, wider each time, until the set is small enough to keep.
fn bounded(mut spans: Vec<Span>) -> Vec<Span> {
    let mut gap = ranges::page_size();
    while spans.len() > MAX_SPANS {
        spans = ranges::joined(spans, gap);
        gap *= 2;
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;
    const KEY: ProcessKey = ProcessKey { pid: 7, start_time: 9 };

    fn span(from: u64, to: u64) -> Span {
        Span::new(from * PAGE, to * PAGE)
    }

    fn learned(sets: &[Span]) -> WorkingSets {
        let mut working = WorkingSets::default();
        for set in sets {
            working.add(KEY, Wake::Learning, vec![*set]);
        }
        working
    }

    #[test]
    fn the_last_three_learned_wakes_count() {
        let sets = learned(&[span(0, 10), span(20, 30), span(25, 40), span(50, 60)]);
        assert_eq!(sets.get(KEY).unwrap(), [span(20, 40), span(50, 60)]);
        assert_eq!(sets.get(ProcessKey { start_time: 10, ..KEY }), None, "another process");
    }

    #[test]
    fn a_mapped_wake_adds_only_what_was_not_brought_back() {
        let mut sets = learned(&[span(0, 10)]);
        sets.add(KEY, Wake::Mapped, vec![span(0, 10), span(12, 14)]);
        assert_eq!(sets.get(KEY).unwrap(), [span(0, 10), span(12, 14)]);
        // Three learning wakes later the old pages are out of it, however often they were brought back.
        for _ in 0..3 {
            sets.add(KEY, Wake::Mapped, vec![span(0, 14)]);
            sets.add(KEY, Wake::Learning, vec![span(2, 3)]);
        }
        assert_eq!(sets.get(KEY).unwrap(), [span(2, 3)]);
    }

    #[test]
    fn the_first_wake_and_every_eighth_learn() {
        let mut sets = WorkingSets::default();
        let mut wakes = Vec::new();
        for _ in 0..17 {
            let wake = sets.next_wake();
            sets.add(KEY, wake, vec![span(0, 1)]);
            wakes.push(wake == Wake::Learning);
        }
        let learning: Vec<usize> = (0..17).filter(|i| wakes[*i]).collect();
        assert_eq!(learning, [0, 8, 16]);
    }

    #[test]
    fn saved_sets_come_back_for_the_same_process_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sets.json");
        assert_eq!(WorkingSets::load(&path).unwrap(), WorkingSets::default());

        let own = ProcessKey::of(nix::unistd::getpid().as_raw()).unwrap();
        let mut sets = learned(&[span(0, 4)]);
        sets.add(own, Wake::Learning, vec![span(1, 2), span(8, 9)]);
        sets.save(&path).unwrap();
        let loaded = WorkingSets::load(&path).unwrap();
        assert_eq!(loaded.get(own), sets.get(own));
        assert_eq!(loaded.get(KEY), None, "that process never ran");

        let other_boot = fs::read_to_string(&path).unwrap().replace(&boot_id().unwrap(), "another");
        fs::write(&path, other_boot).unwrap();
        assert_eq!(WorkingSets::load(&path).unwrap(), WorkingSets::default());
        fs::write(&path, "{").unwrap();
        assert_eq!(WorkingSets::load(&path).unwrap(), WorkingSets::default());
    }

    #[test]
    fn a_scattered_set_is_rounded_up() {
        let single: Vec<Span> = (0..3 * MAX_SPANS as u64).map(|i| span(i * 3, i * 3 + 1)).collect();
        let kept = bounded(single.clone());
        assert!(kept.len() <= MAX_SPANS);
        assert_eq!(ranges::intersection(&single, &kept), single, "nothing is lost");
    }
}
