//! The way down for a throttled server, which goes on ticking: only what is cold goes, as the kernel's own reclaim sees
//! it, in small steps, and less and less as soon as the server misses something.

use std::thread;
use std::time::{Duration, Instant};

use super::group::{Group, WriteLimit};
use super::judge::{Judge, swap_cached};
use super::page_out::{Bounds, PagedOut, Stop};
use super::swap::Facts;
use super::{Cancel, Error, Result};

/// One step: a hundredth of what it holds.
const STEP: u64 = 100;
/// A step smaller than this is not worth its scan.
const SMALLEST: u64 = 256 << 10;
/// Between two steps: long enough for a tick of 20 Hz to miss what went, several times over.
const PAUSE: Duration = Duration::from_millis(300);
/// The share of the last ten seconds in which some task of the server waited for memory that is too much; percent,
/// `some avg10` of its memory.pressure (Documentation/accounting/psi.rst).
const PRESSURE: f64 = 2.0;
/// One part in this many of a step that comes back at once is too much.
const MISSED: u64 = 8;
/// Steps in a row that freed next to nothing: nothing cold is left.
const IDLE: u32 = 3;

/// Pages out what is cold of a running cgroup, down to `bounds.keep`; blocks, about half a minute.
///
/// # Errors
/// [`Error::NoSwap`], [`Error::SwapForbidden`], [`Error::NoColdReclaim`], or a cgroup that is gone.
pub fn page_out_cold(
    group: &Group,
    bounds: Bounds,
    cancel: &Cancel,
    write_limit: &mut WriteLimit<'_>,
) -> Result<PagedOut> {
    if Facts::read()?.size() == 0 {
        return Err(Error::NoSwap);
    }
    // Without the word, 6.1 would throw out jars and libraries first.
    let word =
        group.anonymous_only().ok_or_else(|| Error::NoColdReclaim { cgroup: group.path().to_owned() })?;
    group.lift_swap_limit(write_limit)?;
    group.swap_room()?;
    let begun = Instant::now();
    let mut judge = Judge::new(group);
    let mut done = PagedOut { anonymous: group.stat("anon")?.unwrap_or(0), ..PagedOut::default() };
    done.stopped = judge.watch(group, || in_steps(group, word, bounds, cancel))?;
    let left = group.stat("anon")?.unwrap_or(0);
    done.paged_out = done.anonymous.saturating_sub(left);
    done.swap_cached = swap_cached(group)?.min(done.paged_out);
    done.handed_back = judge.handed_back(done.paged_out, done.swap_cached);
    done.swap_half_used = Facts::read()?.half_used();
    done.took = begun.elapsed();
    Ok(done)
}

/// The end by itself is `None`: nothing cold is left.
fn in_steps(group: &Group, word: &str, bounds: Bounds, cancel: &Cancel) -> Result<Option<Stop>> {
    let files_before = group.stat("file")?.unwrap_or(0);
    let mut step = group.current()? / STEP;
    let mut idle = 0;
    loop {
        if cancel.is_cancelled() {
            return Ok(Some(Stop::Cancelled));
        }
        let swap = Facts::read()?;
        if swap.free() < swap.size() / 20 {
            return Ok(Some(Stop::SwapFull));
        }
        let before = group.current()?;
        if step < SMALLEST || idle >= IDLE || before <= bounds.keep {
            return Ok(None);
        }
        let missed_before = missed(group)?;
        group.reclaim(step.min(before - bounds.keep), word);
        thread::sleep(PAUSE);
        let freed = before.saturating_sub(group.current()?);
        idle = if freed < step / 4 { idle + 1 } else { 0 };
        if missed(group)? - missed_before > step / MISSED || pressure(group) > PRESSURE {
            step /= 2;
        }
        if group.stat("file")?.unwrap_or(0) < files_before - files_before / 20 {
            return Ok(None);
        }
    }
}

/// Bytes that came back from swap since it began to count (`workingset_refault_anon`, since Linux 5.9).
fn missed(group: &Group) -> Result<u64> {
    Ok(group.stat("workingset_refault_anon")?.unwrap_or(0) * super::ranges::page_size())
}

fn pressure(group: &Group) -> f64 {
    let text = std::fs::read_to_string(group.path().join("memory.pressure")).unwrap_or_default();
    some_avg10(&text).unwrap_or(0.0)
}

/// `some avg10=0.00 avg60=…`: a kernel without PSI can't warn; refaults still do.
fn some_avg10(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("some avg10="))?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read() {
        let text = "some avg10=2.50 avg60=0.10 avg300=0.00 total=1\nfull avg10=9.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(some_avg10(text), Some(2.5));
        assert_eq!(some_avg10("full avg10=1.0"), None);
    }

    #[test]
    fn a_kernel_that_would_take_files_is_refused() {
        let group = Group::new("/nowhere");
        let swap = Facts::read().unwrap().size() > 0;
        let refused = page_out_cold(&group, Bounds::default(), &Cancel::default(), &mut |_, _| Ok(()));
        let expected = |error: &Error| matches!(error, Error::NoColdReclaim { .. });
        assert!(refused.is_err_and(|error| if swap {
            expected(&error)
        } else {
            matches!(error, Error::NoSwap)
        }));
    }
}
