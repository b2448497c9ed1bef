//! The pool: what sleepers gave back, and what of it may be promised (design §4).
//!
//! A wake must never fail for lack of memory. So the node keeps room for the largest wakes that may come together,
//! and when it hasn't got that room, it puts a dozing server deeper before the kernel has to. Pure: the agent brings
//! the numbers and carries out what follows.

use std::{cmp::Reverse, fs, io, time::Duration};

/// A server that sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sleeper<'a> {
    pub name: &'a str,
    /// When its last player was here, or its sleep began, on the boot clock.
    pub idle_since: Duration,
    /// Bytes that it gave back, and may want again when it wakes.
    pub handed_back: u64,
    pub deepening: Deepening,
}

/// Whether more can be had of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deepening {
    /// It dozes, and nothing forbids it to go deep now.
    Possible,
    /// It is on its way.
    Underway,
    /// It is deep, or may not.
    No,
}

/// The node's memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    pub handed_back: u64,
    /// What the largest wakes that may come together want.
    pub headroom: u64,
    /// What the node keeps besides, for those who are awake: without it the kernel swaps, whom it likes.
    pub reserve: u64,
    /// What the node could give now.
    pub available: u64,
}

/// What follows from a pool that is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy<'a> {
    /// It is not.
    None,
    /// Who was idle longest goes deeper, one at a time.
    Deepen(&'a str),
    /// Somebody is on his way.
    Underway,
    /// Nobody is left: no more servers should come to this node.
    Nobody,
}

impl Pool {
    /// `wakes`: how many wakes may come together.
    pub fn new(memory: Memory, wakes: usize, sleepers: &[Sleeper<'_>]) -> Self {
        let mut wanted: Vec<u64> = sleepers.iter().map(|sleeper| sleeper.handed_back).collect();
        wanted.sort_unstable_by_key(|bytes| Reverse(*bytes));
        Self {
            handed_back: wanted.iter().sum(),
            headroom: wanted.iter().take(wakes).sum(),
            reserve: (memory.total / RESERVE_PART).min(RESERVE_MOST),
            available: memory.available,
        }
    }

    /// What is missing to headroom and reserve.
    pub fn short(&self) -> u64 {
        self.headroom.saturating_add(self.reserve).saturating_sub(self.available)
    }

    pub fn remedy<'a>(&self, sleepers: &[Sleeper<'a>]) -> Remedy<'a> {
        if self.short() == 0 {
            return Remedy::None;
        }
        if sleepers.iter().any(|sleeper| sleeper.deepening == Deepening::Underway) {
            return Remedy::Underway;
        }
        let possible = sleepers.iter().filter(|sleeper| sleeper.deepening == Deepening::Possible);
        possible
            .min_by_key(|sleeper| sleeper.idle_since)
            .map_or(Remedy::Nobody, |one| Remedy::Deepen(one.name))
    }
}

/// The reserve: a part of the node's memory, and a GiB at most. A refill leaves as much.
const RESERVE_PART: u64 = 20;
const RESERVE_MOST: u64 = 1 << 30;

/// The node's memory as the kernel sees it, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub total: u64,
    /// What it could give without swapping.
    pub available: u64,
}

impl Memory {
    /// `MemTotal` and `MemAvailable` of `/proc/meminfo` (since Linux 3.14).
    ///
    /// # Errors
    /// `/proc` can't be read.
    pub fn read() -> io::Result<Self> {
        let info = fs::read_to_string("/proc/meminfo")?;
        let bytes = |key: &str| {
            let kib = info
                .lines()
                .find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB")?.parse().ok());
            kib.map(|kib: u64| kib * 1024).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
        };
        Ok(Self { total: bytes("MemTotal:")?, available: bytes("MemAvailable:")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(name: &str, idle_since: u64, handed_back: u64, deepening: Deepening) -> Sleeper<'_> {
        Sleeper { name, idle_since: Duration::from_secs(idle_since), handed_back, deepening }
    }

    /// Without a reserve.
    fn memory(available: u64) -> Memory {
        Memory { total: 0, available }
    }

    #[test]
    fn room_is_kept_for_the_largest_wakes() {
        let sleepers = [5, 30, 10, 20].map(|bytes| sleeper("a", 0, bytes, Deepening::No));
        let pool = Pool::new(memory(45), 2, &sleepers);
        assert_eq!((pool.handed_back, pool.headroom, pool.short()), (65, 50, 5));
        assert_eq!(Pool::new(memory(45), 9, &sleepers).headroom, 65);
        assert_eq!(Pool::new(memory(50), 2, &sleepers).short(), 0);
    }

    #[test]
    fn who_was_idle_longest_goes_deeper_first_and_one_at_a_time() {
        let deep = sleeper("deep", 1, 50, Deepening::No);
        let old = sleeper("old", 2, 0, Deepening::Possible);
        let young = sleeper("young", 3, 0, Deepening::Possible);
        let busy = sleeper("busy", 1, 0, Deepening::Underway);
        let low = |sleepers: &[Sleeper<'static>]| Pool::new(memory(10), 1, sleepers).remedy(sleepers);
        assert_eq!(low(&[deep, young, old]), Remedy::Deepen("old"));
        assert_eq!(low(&[deep, young, busy, old]), Remedy::Underway);
        assert_eq!(low(&[deep]), Remedy::Nobody);
        let ample = [old, young];
        assert_eq!(Pool::new(memory(10), 1, &ample).remedy(&ample), Remedy::None);
    }

    #[test]
    fn those_who_doze_go_deep_before_the_kernel_swaps() {
        let dozing = [sleeper("dozing", 2, 0, Deepening::Possible)];
        let full = Memory { total: 2000, available: 99 };
        let pool = Pool::new(full, 3, &dozing);
        assert_eq!((pool.headroom, pool.reserve, pool.short()), (0, 100, 1));
        assert_eq!(pool.remedy(&dozing), Remedy::Deepen("dozing"));
        let large = Memory { total: 100 << 30, available: 2 << 30 };
        assert_eq!(Pool::new(large, 3, &dozing).reserve, 1 << 30);
    }

    #[test]
    fn the_kernel_says_what_it_has() {
        let memory = Memory::read().unwrap();
        assert!(memory.available > 1 << 20 && memory.total > memory.available);
    }
}
