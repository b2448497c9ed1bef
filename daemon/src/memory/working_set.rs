//! What a server touched after its last wakes: the pages that the next wake brings back, those first that were
//! needed first. Kept across restarts of the daemon, dropped when the process is another one.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use procfs::process::Process;

use super::pagemap::{Pagemap, State};
use super::ranges::{self, Span};
use super::{Error, Result, regions, stored_sets};

/// What a learning wake touched counts until three more have learned.
const WAKES: usize = 3;
/// Every eighth wake learns anew, so that pages no longer used fall out.
const LEARN_EVERY: u32 = 8;
/// Spans kept of one wake (16 bytes each). A more scattered set is rounded up over small gaps.
const MAX_SPANS: usize = 64 << 10;

/// One process, and not a later one with its pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessKey {
    pub pid: i32,
    /// In clock ticks since boot (field 22 of /proc/PID/stat).
    pub start_time: u64,
    /// Of the program that it runs: execve(2) keeps pid and start time, and replaces all memory.
    pub program: u64,
}

impl ProcessKey {
    /// # Errors
    /// [`Error::Gone`] if there is no such process.
    pub fn of(pid: i32) -> Result<Self> {
        let stat = Process::new(pid).and_then(|p| p.stat()).map_err(|_| Error::Gone { pid })?;
        // Where its stack begins is drawn anew at each execve (ASLR), and is there also without it.
        Ok(Self { pid, start_time: stat.starttime, program: stat.startstack ^ stat.startcode.rotate_left(1) })
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

/// Disjoint sets of pages, by the look that found them mapped: what was needed first comes first.
pub type Groups = Vec<Vec<Span>>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct History {
    /// What learning wakes touched. The newest last.
    pub(super) wakes: VecDeque<Groups>,
    /// What mapped wakes touched on top, all since the last learning one: brought back once, a page is not seen to be
    /// missed again. The newest last.
    pub(super) missed: VecDeque<Groups>,
    /// Wakes since the last learning one.
    pub(super) since_learning: u32,
}

/// The working sets of one server's processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkingSets {
    pub(super) processes: BTreeMap<ProcessKey, History>,
}

/// Watches what gets mapped after a wake.
#[derive(Debug)]
pub struct Looks {
    wake: Wake,
    stayed: BTreeMap<ProcessKey, Vec<Span>>,
    seen: BTreeMap<ProcessKey, Groups>,
    early: BTreeMap<ProcessKey, Vec<Span>>,
}

impl Looks {
    pub fn new(wake: Wake) -> Self {
        Self { wake, stayed: BTreeMap::new(), seen: BTreeMap::new(), early: BTreeMap::new() }
    }

    /// What is mapped now never went out, and is no working set.
    ///
    /// # Errors
    /// [`Error::Gone`], or missing rights.
    pub fn leave_out_mapped(&mut self, pid: i32) -> Result<()> {
        self.stayed.insert(ProcessKey::of(pid)?, mapped(pid)?);
        Ok(())
    }

    /// These pages were needed for its first answer, whatever is known of them.
    pub fn early(&mut self, process: ProcessKey, pages: Vec<Span>) {
        self.early.insert(process, pages);
    }

    /// What one process has touched since the last look is the group of this `number`.
    ///
    /// # Errors
    /// [`Error::Gone`], or missing rights.
    pub fn look(&mut self, pid: i32, number: usize) -> Result<()> {
        let process = ProcessKey::of(pid)?;
        let stayed = self.stayed.get(&process).map(Vec::as_slice).unwrap_or_default();
        let touched = ranges::difference(&mapped(pid)?, stayed);
        add_to_group(self.seen.entry(process).or_default(), number, &touched);
        Ok(())
    }
}

impl WorkingSets {
    /// The pages to bring back: what any of the last wakes touched. `None` = never recorded.
    pub fn get(&self, process: ProcessKey) -> Option<Groups> {
        let History { wakes, missed, .. } = self.processes.get(&process)?;
        let longest = wakes.iter().chain(missed).map(Vec::len).max().unwrap_or(0);
        let mut groups = Groups::new();
        for number in 0..longest {
            let of_wakes = wakes.iter().chain(missed).filter_map(|wake| wake.get(number));
            add_to_group(&mut groups, number, &ranges::joined(of_wakes.flatten().copied().collect(), 0));
        }
        Some(groups)
    }

    /// Bytes of all processes' sets.
    pub fn bytes(&self) -> u64 {
        let sets = self.processes.keys().filter_map(|process| self.get(*process));
        sets.flatten().map(|group| ranges::total(&group)).sum()
    }

    /// Wakes that the next one can be done by.
    pub fn wakes(&self) -> usize {
        self.processes.values().map(|history| history.wakes.len()).max().unwrap_or(0)
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

    /// Records what was seen after a wake.
    pub fn record(&mut self, mut looks: Looks) {
        for (process, groups) in looks.seen {
            let early = looks.early.remove(&process).unwrap_or_default();
            self.add(process, looks.wake, groups, &early);
        }
    }

    fn add(&mut self, process: ProcessKey, wake: Wake, seen: Groups, early: &[Span]) {
        let known = ranges::joined(self.get(process).unwrap_or_default().concat(), 0);
        let history = self.processes.entry(process).or_default();
        if wake == Wake::Mapped && !history.wakes.is_empty() {
            // What was brought back mapped says nothing; only what came on top was asked for.
            let mut on_top = vec![early.to_vec()];
            for (number, group) in seen.iter().enumerate() {
                add_to_group(&mut on_top, number, &ranges::difference(group, &known));
            }
            bound(&mut on_top);
            history.missed.push_back(on_top);
            history.since_learning += 1;
        } else {
            let mut groups = seen;
            bound(&mut groups);
            history.wakes.push_back(groups);
            history.missed.clear();
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
        stored_sets::write(self, path)
    }

    /// Reads what an earlier daemon saved, less the processes that are gone. No file, and a file that can't be
    /// understood or is of another boot, are an empty record: the next wake learns.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn load(path: &Path) -> Result<Self> {
        let mut sets = stored_sets::read(path)?;
        sets.retain_living();
        Ok(sets)
    }
}

/// The anonymous memory of a process that it reaches without a fault.
fn mapped(pid: i32) -> Result<Vec<Span>> {
    Pagemap::open(pid)?.pages(State::Present, &regions::anonymous(pid)?)
}

/// Adds to the group of this number what is in no group yet.
fn add_to_group(groups: &mut Groups, number: usize, pages: &[Span]) {
    let known = ranges::joined(groups.concat(), 0);
    if groups.len() <= number {
        groups.resize(number + 1, vec![]);
    }
    groups[number] = ranges::union(&groups[number], &ranges::difference(pages, &known));
}

/// Closes gaps, wider each time, until the set is small enough to keep.
fn bound(groups: &mut Groups) {
    let mut gap = ranges::page_size();
    while groups.iter().map(Vec::len).sum::<usize>() > MAX_SPANS {
        let wide = std::mem::take(groups);
        for (number, group) in wide.into_iter().enumerate() {
            add_to_group(groups, number, &ranges::joined(group, gap));
        }
        gap *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;
    const KEY: ProcessKey = ProcessKey { pid: 7, start_time: 9, program: 5 };

    fn span(from: u64, to: u64) -> Span {
        Span::new(from * PAGE, to * PAGE)
    }

    fn learned(sets: &[Span]) -> WorkingSets {
        let mut working = WorkingSets::default();
        for set in sets {
            working.add(KEY, Wake::Learning, vec![vec![*set]], &[]);
        }
        working
    }

    fn all(sets: &WorkingSets) -> Vec<Span> {
        ranges::joined(sets.get(KEY).unwrap().concat(), 0)
    }

    #[test]
    fn the_last_three_learned_wakes_count() {
        let sets = learned(&[span(0, 10), span(20, 30), span(25, 40), span(50, 60)]);
        assert_eq!(all(&sets), [span(20, 40), span(50, 60)]);
        assert_eq!(sets.get(ProcessKey { start_time: 10, ..KEY }), None, "another process");
        assert_eq!(sets.get(ProcessKey { program: 6, ..KEY }), None, "another program");
        assert_eq!((sets.bytes(), sets.wakes()), (30 * PAGE, 3));
    }

    #[test]
    fn a_mapped_wake_adds_only_what_was_not_brought_back() {
        let mut sets = learned(&[span(0, 10)]);
        sets.add(KEY, Wake::Mapped, vec![vec![span(0, 10), span(12, 14)]], &[]);
        assert_eq!(all(&sets), [span(0, 10), span(12, 14)]);
        // Three learning wakes later the old pages are out of it, however often they were brought back.
        for _ in 0..3 {
            sets.add(KEY, Wake::Mapped, vec![vec![span(0, 14)]], &[]);
            sets.add(KEY, Wake::Learning, vec![vec![span(2, 3)]], &[]);
        }
        assert_eq!(all(&sets), [span(2, 3)]);
    }

    #[test]
    fn what_was_needed_first_comes_first() {
        let mut sets = WorkingSets::default();
        sets.add(KEY, Wake::Learning, vec![vec![span(8, 10)], vec![span(0, 4)]], &[]);
        sets.add(KEY, Wake::Learning, vec![vec![span(8, 9), span(20, 21)], vec![span(2, 10)]], &[]);
        assert_eq!(sets.get(KEY).unwrap(), [vec![span(8, 10), span(20, 21)], vec![span(0, 8)]]);
    }

    #[test]
    fn what_mapped_wakes_missed_counts_until_one_learns_and_comes_when_it_was_needed() {
        let mut sets = WorkingSets::default();
        sets.add(KEY, Wake::Learning, vec![vec![span(0, 2)], vec![], vec![span(10, 12)]], &[]);
        for wake in 0..4 {
            let missed = span(20 + wake, 21 + wake);
            sets.add(KEY, Wake::Mapped, vec![vec![], vec![span(0, 2), missed], vec![span(10, 13)]], &[]);
        }
        assert_eq!(sets.get(KEY).unwrap(), [vec![span(0, 2)], vec![span(20, 24)], vec![span(10, 13)]]);
        sets.add(KEY, Wake::Learning, vec![vec![span(1, 2)]], &[]);
        assert_eq!(sets.get(KEY).unwrap(), [vec![span(0, 2)], vec![], vec![span(10, 12)]]);
    }

    #[test]
    fn what_a_first_answer_took_comes_first_the_next_time() {
        let mut sets = WorkingSets::default();
        sets.add(KEY, Wake::Learning, vec![vec![span(0, 2)], vec![], vec![span(10, 20)]], &[]);
        let seen = vec![vec![span(0, 2), span(30, 31)], vec![span(10, 20)]];
        sets.add(KEY, Wake::Mapped, seen, &[span(12, 14)]);
        let first = vec![span(0, 2), span(12, 14), span(30, 31)];
        assert_eq!(sets.get(KEY).unwrap(), [first, vec![], vec![span(10, 12), span(14, 20)]]);
    }

    #[test]
    fn the_first_wake_and_every_eighth_learn() {
        let mut sets = WorkingSets::default();
        let mut wakes = Vec::new();
        for _ in 0..17 {
            let wake = sets.next_wake();
            sets.add(KEY, wake, vec![vec![span(0, 1)]], &[]);
            wakes.push(wake == Wake::Learning);
        }
        let learning: Vec<usize> = (0..17).filter(|i| wakes[*i]).collect();
        assert_eq!(learning, [0, 8, 16]);
    }

    #[test]
    fn saved_sets_come_back_for_the_same_process_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sets");
        let own = ProcessKey::of(nix::unistd::getpid().as_raw()).unwrap();
        let mut sets = learned(&[span(0, 4)]);
        sets.add(own, Wake::Learning, vec![vec![span(1, 2)], vec![span(8, 9)]], &[]);
        sets.save(&path).unwrap();
        let loaded = WorkingSets::load(&path).unwrap();
        assert_eq!(loaded.get(own), sets.get(own));
        assert_eq!(loaded.get(KEY), None, "that process never ran");
    }

    #[test]
    fn another_program_in_the_same_process_is_another_process() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "read go; exec cat"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id() as i32;
        let name = || std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
        let wait_for = |wanted: &str| {
            let limit = std::time::Instant::now() + std::time::Duration::from_secs(10);
            while name().trim() != wanted {
                assert!(std::time::Instant::now() < limit, "{} is not {wanted}", name());
                std::thread::yield_now();
            }
        };
        wait_for("sh");
        let before = ProcessKey::of(pid).unwrap();
        assert_eq!(ProcessKey::of(pid).unwrap(), before);
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"\n").unwrap();
        wait_for("cat");
        let after = ProcessKey::of(pid).unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!((after.pid, after.start_time), (before.pid, before.start_time));
        assert_ne!(after, before);
    }

    #[test]
    fn a_scattered_set_is_rounded_up() {
        let single: Vec<Span> = (0..3 * MAX_SPANS as u64).map(|i| span(i * 3, i * 3 + 1)).collect();
        let mut kept = vec![single[..100].to_vec(), single[100..].to_vec()];
        bound(&mut kept);
        assert!(kept.concat().len() <= MAX_SPANS);
        let kept = ranges::joined(kept.concat(), 0);
        assert_eq!(ranges::intersection(&single, &kept), single, "nothing is lost");
    }
}
