//! The way down for a throttled server, which goes on ticking: only what is cold goes, as the kernel's own reclaim sees
//! it, in small steps, and less and less as soon as the server misses something.

use std::thread;
use std::time::{Duration, Instant};

use super::advise::Advice;
use super::group::{Group, WriteLimit};
use super::judge::Judge;
use super::page_out::{Bounds, PagedOut, Stop};
use super::plan::survey;
use super::ranges;
use super::regions::{Regions, Skip};
use super::swap::Facts;
use super::{Cancel, Error, Result};

/// One step: a hundredth of what it holds.
const STEP: u64 = 100;
/// A step is never smaller than this.
const SMALLEST: u64 = 128 << 10;
/// What a server needs it touches in this time: forty ticks of 20 Hz.
const USED_WITHIN: Duration = Duration::from_secs(2);
/// Between two steps: long enough for a tick of 20 Hz to miss what went, several times over.
const PAUSE: Duration = Duration::from_millis(300);
/// Some task of the server waited for memory for more than this share of the time since the last step: too much. By
/// `some total` of its memory.pressure (Documentation/accounting/psi.rst); the averages remember too long.
const PRESSURE: f64 = 0.1;
/// Half of the smallest huge page there is (x86 and 4 KiB pages elsewhere: 2 MiB).
const PART_OF_HUGE: u64 = 1 << 20;
/// One part in this many of what went comes back at once: too much.
const MISSED: u64 = 4;
/// Bytes that may come back between two steps: a few faults, each with the neighbours that the kernel reads ahead.
const TOLERATED: u64 = 256 << 10;
/// Steps in a row that were missed although each was half as large as the one before: what is left is in use.
const STRIKES: u32 = 6;
/// Steps in a row that freed next to nothing: nothing cold is left.
const IDLE: u32 = 5;
const AT_MOST: Duration = Duration::from_mins(5);

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
    // What came back in between has a copy there too, and is mapped.
    done.swap_cached = in_memory(group)?.saturating_sub(left).min(done.paged_out);
    done.handed_back = judge.handed_back(done.paged_out, done.swap_cached);
    done.swap_half_used = Facts::read()?.half_used();
    done.took = begun.elapsed();
    Ok(done)
}

/// The end by itself is `None`: nothing cold is left.
fn in_steps(group: &Group, word: &str, bounds: Bounds, cancel: &Cancel) -> Result<Option<Stop>> {
    let files_before = group.stat("file")?.unwrap_or(0);
    let largest = (group.current()? / STEP).max(SMALLEST);
    let (mut step, mut idle, mut strikes) = (largest, 0, 0);
    let begun = Instant::now();
    let mut in_use = look_what_is_used(group)?;
    while idle < IDLE && strikes < STRIKES && begun.elapsed() < AT_MOST {
        if cancel.is_cancelled() {
            return Ok(Some(Stop::Cancelled));
        }
        let swap = Facts::read()?;
        if swap.free() < swap.size() / 20 {
            return Ok(Some(Stop::SwapFull));
        }
        let before = group.current()?;
        let cold = in_memory(group)?.saturating_sub(in_use).min(before.saturating_sub(bounds.keep));
        if cold < SMALLEST || group.stat("file")?.unwrap_or(0) < files_before - files_before / 20 {
            break;
        }
        let (missed_before, waited_before, stepped) = (missed(group)?, waited(group), Instant::now());
        group.reclaim(step.min(cold), word);
        let freed = before.saturating_sub(group.current()?);
        thread::sleep(PAUSE);
        let waited =
            waited(group).saturating_sub(waited_before).as_secs_f64() / stepped.elapsed().as_secs_f64();
        let came_back = missed(group)? - missed_before;
        if came_back > (freed / MISSED).max(TOLERATED) || waited > PRESSURE {
            strikes += 1;
            step = (step / 2).max(SMALLEST);
            in_use = look_what_is_used(group)?;
        } else {
            strikes = 0;
            idle = if freed < step.min(cold) / 4 { idle + 1 } else { 0 };
            step = (step * 2).min(largest);
        }
    }
    Ok(None)
}

/// Forgets what was touched so far, lets it run, and counts what it touched meanwhile, bytes: the reclaim passes over
/// that. Without this all that was ever touched looks used at the first scan, and nothing at the second.
fn look_what_is_used(group: &Group) -> Result<u64> {
    let pids = group.pids()?;
    for pid in &pids {
        unless_gone(cool(*pid))?;
    }
    thread::sleep(USED_WITHIN);
    let mut in_use = 0;
    for pid in &pids {
        let Some(regions) = unless_gone(Regions::of_process(*pid))? else { continue };
        let untouchable = [Skip::Executable, Skip::Locked, Skip::Userfaultfd];
        let left_alone = untouchable.iter().filter_map(|skip| regions.skipped.get(skip)).sum::<u64>();
        in_use += regions.referenced + left_alone;
    }
    Ok(in_use)
}

/// Clears the accessed bits of what a process holds, and breaks its huge pages up. A huge page has one accessed bit for
/// all of its 512 pages: a server that touches 20 % of its memory, spread as game heaps are, looks as if it used all of
/// it (Linux 6.12 with transparent_hugepage=always: 129.7 of 131 MB), and what the reclaim takes comes back. MADV_COLD
/// breaks up a huge page that it covers only in part (mm/madvise.c, `madvise_cold_or_pageout_pte_range`), clears the
/// bits of the rest, and flushes the TLB, without which the CPU would not set them again (clear_refs does not).
fn cool(pid: i32) -> Result<()> {
    let (process, _) = survey(pid)?;
    for step in ranges::steps(&ranges::cut(&process.advised, PART_OF_HUGE)) {
        process.target.advise(Advice::Cold, &step)?;
    }
    Ok(())
}

/// A process that ended uses nothing.
fn unless_gone<T>(of_process: Result<T>) -> Result<Option<T>> {
    match of_process {
        Ok(value) => Ok(Some(value)),
        Err(Error::Gone { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Bytes of anonymous memory on the LRU lists, those in the swap cache included, shared memory not.
fn in_memory(group: &Group) -> Result<u64> {
    let of = |field| Ok::<u64, Error>(group.stat(field)?.unwrap_or(0));
    Ok((of("inactive_anon")? + of("active_anon")?).saturating_sub(of("shmem")?))
}

/// Bytes that came back from swap since it began to count (`workingset_refault_anon`, since Linux 5.9).
fn missed(group: &Group) -> Result<u64> {
    Ok(group.stat("workingset_refault_anon")?.unwrap_or(0) * ranges::page_size())
}

/// How long some task of it has waited for memory. A kernel without PSI can't tell; what comes back still does.
fn waited(group: &Group) -> Duration {
    let text = std::fs::read_to_string(group.path().join("memory.pressure")).unwrap_or_default();
    some_total(&text).unwrap_or_default()
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=MICROSECONDS`.
fn some_total(text: &str) -> Option<Duration> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    line.split(' ').find_map(|word| word.strip_prefix("total="))?.parse().ok().map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read() {
        let text = "some avg10=2.50 avg60=0.10 avg300=0.00 total=1\nfull avg10=9.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(some_total(text), Some(Duration::from_micros(1)));
        assert_eq!(some_total("full avg10=1.0 total=3"), None);
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
