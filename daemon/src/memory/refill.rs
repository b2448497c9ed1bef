//! After a wake: the rest of a server's memory, in the background, for collectors that walk the whole heap. One step at
//! a time, behind everybody else at the disk, and only while nobody is short of anything.

use std::time::{Duration, Instant};

use procfs::{Current, IoPressure};

use super::advise::{Advice, Target};
use super::group::Group;
use super::pagemap::{Pagemap, State};
use super::ranges::{page_size, steps};
use super::{Error, Result, regions, sys};

/// Bytes that stay free on the machine, whatever is missing here: a twentieth, but a GiB at most.
const LEFT_FREE: u64 = 1 << 30;
/// Stop when some task waited for disks for more than this share of the last ten seconds (percent, `some avg10` of
/// /proc/pressure/io).
const PRESSURE: f32 = 40.0;
/// Steps of 2 MiB between two looks at all this.
const LOOK_EVERY: usize = 8;
const AT_MOST: Duration = Duration::from_mins(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Complete,
    /// Others need the memory, or its cgroup has no room for it.
    NoRoom,
    /// Others wait for the disk.
    Pressure,
    /// It fell asleep again.
    Frozen,
    TooLong,
}

/// What became of a refill.
#[derive(Clone, Copy, Debug)]
pub struct Refilled {
    pub bytes: u64,
    pub took: Duration,
    pub end: End,
}

/// Brings back all that is on swap of a running server; blocks.
pub fn refill(group: &Group) -> Refilled {
    let begun = Instant::now();
    if let Err(error) = sys::idle_io() {
        tracing::debug!(%error, "no idle I/O class: a refill goes beside the others' reads");
    }
    let mut bytes = 0;
    let end = all(group, begun, &mut bytes).unwrap_or_else(|error| {
        tracing::debug!(%error, "the refill ended early");
        End::Complete
    });
    Refilled { bytes, took: begun.elapsed(), end }
}

fn all(group: &Group, begun: Instant, bytes: &mut u64) -> Result<End> {
    for pid in group.pids()? {
        match one(pid, group, begun, bytes) {
            Ok(End::Complete) | Err(Error::Gone { .. }) => {}
            other => return other,
        }
    }
    Ok(End::Complete)
}

fn one(pid: i32, group: &Group, begun: Instant, bytes: &mut u64) -> Result<End> {
    let target = Target::open(pid)?;
    let swapped = Pagemap::open(pid)?.pages(State::Swapped, &regions::anonymous(pid)?)?;
    for (count, step) in steps(&swapped).iter().enumerate() {
        if count % LOOK_EVERY == 0
            && let Some(end) = look(group, begun)?
        {
            return Ok(end);
        }
        target.advise(Advice::WillNeed, step)?;
        *bytes += target.touch(step)?.pages * page_size();
    }
    Ok(End::Complete)
}

fn look(group: &Group, begun: Instant) -> Result<Option<End>> {
    let total = procfs::Meminfo::current().map_or(0, |info| info.mem_total);
    let pressed = IoPressure::current().is_ok_and(|psi| psi.some.avg10 > PRESSURE);
    Ok(if group.is_frozen()? {
        Some(End::Frozen)
    } else if group.room() < (total / 20).min(LEFT_FREE) {
        Some(End::NoRoom)
    } else if pressed {
        Some(End::Pressure)
    } else if begun.elapsed() > AT_MOST {
        Some(End::TooLong)
    } else {
        None
    })
}
