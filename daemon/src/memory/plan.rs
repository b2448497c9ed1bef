//! What a page-out will move, worked out before the first step.

use std::collections::BTreeMap;

use super::advise::Target;
use super::group::Group;
use super::pagemap::{Pagemap, State};
use super::ranges::{self, Span};
use super::regions::{Regions, Skip};
use super::{Error, Result};

/// Gaps that are advised over: each piece of one call is written on its own, so single pages would not merge.
const CLOSE_GAP: u64 = 256 << 10;

/// The part of one process that goes out.
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) target: Target,
    pub(super) pagemap: Pagemap,
    /// Resident before.
    pub(super) pages: Vec<Span>,
    /// `pages` with small gaps closed, within their mappings.
    pub(super) advised: Vec<Span>,
}

/// All processes of a server. Bytes.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) moved: Vec<Moved>,
    /// Resident anonymous memory, moved or not.
    pub(super) anonymous: u64,
    pub(super) skipped: BTreeMap<Skip, u64>,
    /// Not all of it fits.
    pub(super) cut: bool,
}

impl Plan {
    /// All that is resident, less `keep`, cut at what `fits`. Processes that end meanwhile are left out.
    pub(super) fn of_group(group: &Group, keep: u64, fits: u64) -> Result<Self> {
        let mut plan = Self::default();
        for pid in group.pids()? {
            match survey(pid) {
                Ok((process, skipped)) => {
                    plan.anonymous += ranges::total(&process.pages);
                    for (skip, bytes) in skipped {
                        *plan.skipped.entry(skip).or_default() += bytes;
                    }
                    plan.moved.push(process);
                }
                Err(Error::Gone { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        let wanted = plan.anonymous.saturating_sub(keep);
        plan.cut = wanted > fits;
        let mut room = wanted.min(fits);
        for process in &mut plan.moved {
            process.pages = ranges::first(&process.pages, room);
            room -= ranges::total(&process.pages);
            let end = process.pages.last().map_or(0, |last| last.end);
            process.advised = ranges::intersection(&process.advised, &[Span::new(0, end)]);
        }
        Ok(plan)
    }

    /// Counts what an earlier part of the same page-out moved, as far as it is still out.
    pub(super) fn add_what_is_out(&mut self, earlier: &[Moved]) {
        for process in &mut self.moved {
            let same = earlier.iter().find(|earlier| earlier.target.pid() == process.target.pid());
            let Some(earlier) = same else { continue };
            // One that ends meanwhile has nothing out.
            let out = process.pagemap.pages(State::Swapped, &earlier.pages).unwrap_or_default();
            self.anonymous += ranges::total(&out);
            process.pages = ranges::union(&process.pages, &out);
        }
    }
}

/// What of a process may be moved, and what is left alone by reason.
pub(super) fn survey(pid: i32) -> Result<(Moved, BTreeMap<Skip, u64>)> {
    let target = Target::open(pid)?;
    let regions = Regions::of_process(pid)?;
    let pagemap = Pagemap::open(pid)?;
    let pages = pagemap.pages(State::Present, &regions.spans())?;
    let mut advised = Vec::new();
    let mut rest = pages.as_slice();
    for region in &regions.anonymous {
        // Adjacent mappings were joined into one span: cut at the borders again.
        let here = rest.partition_point(|p| p.start < region.span.end);
        let own = ranges::intersection(&rest[..here], &[region.span]);
        advised.extend(ranges::joined(own, CLOSE_GAP));
        let finished = rest.partition_point(|p| p.end <= region.span.end);
        rest = &rest[finished..];
    }
    Ok((Moved { target, pagemap, pages, advised }, regions.skipped))
}

/// Bytes of what is meant to go that are in the swap cache already, by a sample of each process's pages.
pub(super) fn own_in_swap_cache(moved: &[Moved]) -> u64 {
    moved.iter().map(|m| m.pagemap.in_swap_cache(&m.pages).unwrap_or(0)).sum()
}

/// Bytes of what was meant to go that are on swap. A process that ended has none.
pub(super) fn on_swap(moved: &[Moved]) -> u64 {
    let swapped = moved.iter().filter_map(|m| m.pagemap.pages(State::Swapped, &m.pages).ok());
    swapped.map(|spans| ranges::total(&spans)).sum()
}
