//! How much memory the node really got back. Not what the process lost: after a page-out to a disk its RSS is
//! 0 and every page is still there, in the swap cache.

use procfs::{Current, Meminfo};

use super::group::Group;
use super::ranges::page_size;
use super::{Error, Result, swap};

/// Bytes that a page-out gave to the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct HandedBack {
    pub bytes: u64,
    /// From the whole machine's counters: no v2 memory controller counts this server alone.
    pub estimated: bool,
}

/// The counters at one moment, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Group { current: u64, zram: u64 },
    Machine { free: u64, swap_cached: u64 },
}

impl Reading {
    fn take(group: &Group) -> Result<Self> {
        if group.has_memory_controller() {
            Ok(Self::Group { current: group.current()?, zram: swap::zram_used() })
        } else {
            let info = meminfo()?;
            let free = info.mem_free + held_by_cpus()?;
            Ok(Self::Machine { free, swap_cached: info.swap_cached })
        }
    }

    /// Bytes handed back since `before`; negative while pages are on their way through the swap cache.
    /// zram's own pool is not charged to the cgroup, so it is subtracted there; MemFree has it already.
    fn since(self, before: Self) -> i64 {
        let rise = |now: u64, then: u64| now as i64 - then as i64;
        match (before, self) {
            (Self::Group { current: c0, zram: z0 }, Self::Group { current: c1, zram: z1 }) => {
                rise(c0, c1) - rise(z1, z0)
            }
            (Self::Machine { free: f0, swap_cached: s0 }, Self::Machine { free: f1, swap_cached: s1 }) => {
                rise(f1, f0) - rise(s1, s0)
            }
            // The controller came or went in between: nothing to compare.
            _ => 0,
        }
    }
}

/// Adds up what was handed back over one or more stretches of work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judge {
    sum: i64,
    estimated: bool,
}

impl Judge {
    pub(super) fn new(group: &Group) -> Self {
        Self { sum: 0, estimated: !group.has_memory_controller() }
    }

    /// Runs `work` and counts what the node got meanwhile.
    pub(super) fn watch<T>(&mut self, group: &Group, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let before = Reading::take(group)?;
        let result = work();
        self.sum += Reading::take(group)?.since(before);
        result
    }

    /// Never more than went out: what others freed meanwhile is not ours. Without a controller the machine's
    /// free memory says more about the neighbours than about this server, so what went out and is not in the
    /// swap cache any more counts: such a page has no copy in memory (mm/vmscan.c, `shrink_folio_list`).
    pub(super) fn handed_back(self, paged_out: u64, swap_cached: u64) -> HandedBack {
        let bytes = if self.estimated {
            paged_out.saturating_sub(swap_cached)
        } else {
            (self.sum.max(0) as u64).min(paged_out)
        };
        HandedBack { bytes, estimated: self.estimated }
    }
}

/// Bytes in the swap cache: the server's own where its cgroup counts them, else the machine's.
pub(super) fn swap_cached(group: &Group) -> Result<u64> {
    counter(group, "swapcached", |info| info.swap_cached)
}

/// Bytes on their way to a device, swap included: NR_WRITEBACK, which memory.stat calls `file_writeback`.
pub(super) fn writeback(group: &Group) -> Result<u64> {
    counter(group, "file_writeback", |info| info.writeback)
}

fn counter(group: &Group, field: &str, of_machine: impl Fn(&Meminfo) -> u64) -> Result<u64> {
    let own = if group.has_memory_controller() { group.stat(field)? } else { None };
    own.map_or_else(|| Ok(of_machine(&meminfo()?)), Ok)
}

/// Free pages on the lists of single CPUs, in bytes. MemFree leaves them out, and since Linux 6.7 such a list
/// grows to an eighth of its zone: all of a freed GiB can be there for seconds.
fn held_by_cpus() -> Result<u64> {
    let path = "/proc/zoneinfo";
    let text = std::fs::read_to_string(path).map_err(Error::read(path))?;
    Ok(count_pages(&text) * page_size())
}

/// The sum of all `count:` lines of /proc/zoneinfo: one for each zone and CPU.
fn count_pages(zoneinfo: &str) -> u64 {
    let counts = zoneinfo.lines().filter_map(|line| line.trim().strip_prefix("count:"));
    counts.filter_map(|count| count.trim().parse::<u64>().ok()).sum()
}

fn meminfo() -> Result<Meminfo> {
    Meminfo::current()
        .map_err(|e| Error::Read { path: Meminfo::PATH.into(), source: std::io::Error::other(e.to_string()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_judged_by_its_own_charge_less_zrams() {
        let before = Reading::Group { current: 1000, zram: 10 };
        assert_eq!(Reading::Group { current: 100, zram: 10 }.since(before), 900);
        assert_eq!(Reading::Group { current: 100, zram: 310 }.since(before), 600);
        assert_eq!(Reading::Group { current: 1200, zram: 10 }.since(before), -200);
    }

    #[test]
    fn the_swap_cache_is_not_handed_back() {
        let before = Reading::Machine { free: 5000, swap_cached: 0 };
        let written = Reading::Machine { free: 5000, swap_cached: 900 };
        let swept = Reading::Machine { free: 5900, swap_cached: 0 };
        assert_eq!(written.since(before), -900);
        assert_eq!(written.since(before) + swept.since(written), 900);
    }

    #[test]
    fn free_pages_on_the_lists_of_cpus_count_as_free() {
        let zones = "Node 0, zone Normal\n  pages free 9\n  pagesets\n    cpu: 0\n              count: 12\n              \
                     high:  50\n    cpu: 1\n              count:    30\n";
        assert_eq!(count_pages(zones), 42);
    }

    #[test]
    fn the_machine_can_be_read() {
        let group = Group::new("/nowhere");
        assert!(matches!(Reading::take(&group).unwrap(), Reading::Machine { free: 1.., .. }));
        assert_eq!(swap_cached(&group).is_ok(), writeback(&group).is_ok());
    }
}
