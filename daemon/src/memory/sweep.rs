//! Empties the swap cache of what was just paged out. The pages are clean by now, so this costs no I/O.

use nix::sys::resource::{UsageWho, getrusage};

use super::advise::{Advice, Target};
use super::group::Group;
use super::judge::swap_cached;
use super::page_out::{Baseline, LOOK_EVERY, Stop, wait_for_writeback};
use super::plan::Moved;
use super::ranges::{self, Span, page_size};
use super::swap::Facts;
use super::{Cancel, Error, Result};

/// Left in the swap cache for good enough: one part in fifty of what was moved.
const ENOUGH: u64 = 50;
const PASSES: usize = 3;
/// What one write to memory.reclaim asks for: a knock waits no longer than this takes.
const RECLAIM_STEP: u64 = 16 << 20;
/// Pages of a step that are tried before all are touched.
const PROBES: u64 = 4;

/// Sweeps, by memory.reclaim where this kernel can be told to take anonymous memory only, else by mapping
/// each page out of the swap cache again and advising PAGEOUT once more.
pub(super) fn sweep(
    group: &Group,
    moved: &[Moved],
    baseline: Baseline,
    cancel: &Cancel,
) -> Result<Option<Stop>> {
    let moved_bytes: u64 = moved.iter().map(|m| ranges::total(&m.pages)).sum();
    let enough = || Ok::<bool, Error>(baseline.left_in_swap_cache(group)? <= moved_bytes / ENOUGH);
    let stop = || {
        let stop = if cancel.is_cancelled() {
            Some(Stop::Cancelled)
        } else if group.is_frozen()? {
            None
        } else {
            Some(Stop::Thawed)
        };
        Ok::<_, Error>(stop)
    };
    if let Some(word) = group.anonymous_only()
        && stop()?.is_none()
    {
        by_reclaim(group, word, moved_bytes / ENOUGH, cancel)?;
    }
    // From half on a touched page loses its slot and would be written again: better left in the swap cache,
    // clean, where the kernel takes it when it needs the memory.
    let passes = if Facts::read()?.half_used() { 0 } else { PASSES };
    for pass in 0..passes {
        if stop()?.is_some() || enough()? {
            break;
        }
        if pass > 0 {
            wait_for_writeback(group, baseline, cancel)?;
        }
        for process in moved {
            match by_touch(process, || Ok(stop()?.is_some() || enough()?), cancel) {
                Ok(()) | Err(Error::Gone { .. }) => {}
                Err(e) => return Err(e),
            }
        }
    }
    stop()
}

/// Stops when nothing more comes, and when the kernel takes file pages instead (jars and libraries, which the
/// wake would have to read again).
fn by_reclaim(group: &Group, word: &str, enough: u64, cancel: &Cancel) -> Result<()> {
    let files = || Ok::<u64, Error>(group.stat("file")?.unwrap_or(0));
    let files_before = files()?;
    let mut idle = 0;
    let mut left = swap_cached(group)?;
    while left > enough && idle < 2 && !cancel.is_cancelled() {
        group.reclaim(left.min(RECLAIM_STEP), word);
        let now = swap_cached(group)?;
        idle = if now < left { 0 } else { idle + 1 };
        left = now;
        if files()? < files_before - files_before / 20 {
            break;
        }
    }
    Ok(())
}

fn by_touch(process: &Moved, finished: impl Fn() -> Result<bool>, cancel: &Cancel) -> Result<()> {
    for (count, step) in ranges::steps(&process.pages).iter().enumerate() {
        if cancel.is_cancelled() || (count > 0 && count % LOOK_EVERY == 0 && finished()?) {
            break;
        }
        if in_swap_cache(&process.target, step)? {
            process.target.touch(step)?;
        }
        process.target.advise(Advice::PageOut, step)?;
    }
    Ok(())
}

/// Takes unmapped pages out of the swap cache that are in there. Bytes.
pub(super) fn drop_cached(target: &Target, unmapped: &[Span]) -> Result<u64> {
    let mut dropped = 0;
    for step in ranges::steps(unmapped) {
        if in_swap_cache(target, &step)? {
            target.touch(&step)?;
            dropped += ranges::total(&step);
        }
        target.advise(Advice::PageOut, &step)?;
    }
    Ok(dropped)
}

/// Whether touching these pages is free of I/O. The kernel may have taken them out of the swap cache on its
/// own; then touching all would read them from the disk one by one. A fault that had to read is a major one,
/// and is counted for the thread that touched. (Pages full of zeros count as read too, hence several probes.)
fn in_swap_cache(target: &Target, step: &[Span]) -> Result<bool> {
    let page = page_size();
    let pages = ranges::total(step) / page;
    let mut probes = Vec::new();
    let mut passed = 0;
    for span in step {
        let end = passed + span.bytes() / page;
        while (probes.len() as u64) < PROBES {
            let wanted = pages * probes.len() as u64 / PROBES;
            if wanted >= end {
                break;
            }
            let at = span.start + (wanted - passed) * page;
            probes.push(Span::new(at, at + page));
        }
        passed = end;
    }
    let before = major_faults();
    let touched = target.touch(&probes)?;
    Ok(major_faults() - before < touched.pages as i64)
}

fn major_faults() -> i64 {
    getrusage(UsageWho::RUSAGE_THREAD).map_or(0, |usage| usage.major_page_faults())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn group(stat: &str) -> (tempfile::TempDir, Group) {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [("memory.current", "1"), ("memory.stat", stat), ("memory.reclaim", "untouched")]
        {
            fs::write(dir.path().join(file), text).unwrap();
        }
        let group = Group::new(dir.path());
        (dir, group)
    }

    #[test]
    fn reclaim_asks_in_small_portions_and_gives_up_when_nothing_comes() {
        let (dir, group) = group("file 100\nswapcached 50000000\n");
        by_reclaim(&group, "max", 4096, &Cancel::default()).unwrap();
        let asked = fs::read_to_string(dir.path().join("memory.reclaim")).unwrap();
        assert_eq!(asked, "16777216 swappiness=max");
    }

    #[test]
    fn nothing_is_reclaimed_when_little_is_left_or_a_knock_came() {
        let cancelled = Cancel::default();
        cancelled.cancel();
        for (stat, cancel) in [("swapcached 4096\n", Cancel::default()), ("swapcached 9999999\n", cancelled)]
        {
            let (dir, group) = group(stat);
            by_reclaim(&group, "200", 4096, &cancel).unwrap();
            assert_eq!(fs::read_to_string(dir.path().join("memory.reclaim")).unwrap(), "untouched");
        }
    }
}
