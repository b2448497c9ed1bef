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
    /// What the node could give now.
    pub available: u64,
}

impl Pool {
    /// `wakes`: how many wakes may come together.
    pub fn new(available: u64, wakes: usize, sleepers: &[Sleeper<'_>]) -> Self {
        let mut wanted: Vec<u64> = sleepers.iter().map(|sleeper| sleeper.handed_back).collect();
        wanted.sort_unstable_by_key(|bytes| Reverse(*bytes));
        Self { handed_back: wanted.iter().sum(), headroom: wanted.iter().take(wakes).sum(), available }
    }

    /// What is missing to the headroom.
    pub fn short(&self) -> u64 {
        self.headroom.saturating_sub(self.available)
    }

    /// Whom to put deeper now: the one that was idle longest, one at a time.
    pub fn deepen<'a>(&self, sleepers: &[Sleeper<'a>]) -> Option<&'a str> {
        if self.short() == 0 || sleepers.iter().any(|sleeper| sleeper.deepening == Deepening::Underway) {
            return None;
        }
        let possible = sleepers.iter().filter(|sleeper| sleeper.deepening == Deepening::Possible);
        possible.min_by_key(|sleeper| sleeper.idle_since).map(|sleeper| sleeper.name)
    }
}

/// What the kernel could give without swapping: `MemAvailable` of `/proc/meminfo` (since Linux 3.14), bytes.
///
/// # Errors
/// `/proc` can't be read.
pub fn available() -> io::Result<u64> {
    let info = fs::read_to_string("/proc/meminfo")?;
    let kib = info
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.map(|kib: u64| kib * 1024).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(name: &str, idle_since: u64, handed_back: u64, deepening: Deepening) -> Sleeper<'_> {
        Sleeper { name, idle_since: Duration::from_secs(idle_since), handed_back, deepening }
    }

    #[test]
    fn room_is_kept_for_the_largest_wakes() {
        let sleepers = [5, 30, 10, 20].map(|bytes| sleeper("a", 0, bytes, Deepening::No));
        let pool = Pool::new(45, 2, &sleepers);
        assert_eq!((pool.handed_back, pool.headroom, pool.short()), (65, 50, 5));
        assert_eq!(Pool::new(45, 9, &sleepers).headroom, 65);
        assert_eq!(Pool::new(50, 2, &sleepers).short(), 0);
    }

    #[test]
    fn who_was_idle_longest_goes_deeper_first_and_one_at_a_time() {
        let deep = sleeper("deep", 1, 50, Deepening::No);
        let old = sleeper("old", 2, 0, Deepening::Possible);
        let young = sleeper("young", 3, 0, Deepening::Possible);
        let busy = sleeper("busy", 1, 0, Deepening::Underway);
        let low = |sleepers: &[Sleeper<'static>]| Pool::new(10, 1, sleepers).deepen(sleepers);
        assert_eq!(low(&[deep, young, old]), Some("old"));
        assert_eq!(low(&[deep, young, busy, old]), None);
        assert_eq!(low(&[deep]), None, "nobody is left: the node is short");
        let ample = [old, young];
        assert_eq!(Pool::new(10, 1, &ample).deepen(&ample), None);
    }

    #[test]
    fn the_kernel_says_what_it_has() {
        assert!(available().unwrap() > 1 << 20);
    }
}
