//! What a wake from deep costs: the device is measured at the start, and whenever another one is swapped to first.

use std::path::{Path, PathBuf};

use dormouse_api::{
    preflight::{Check, Disk},
    why::DeepWake,
};

use super::{Agent, Message, managed::Managed, status::memory};
use crate::{
    limits::Floor,
    memory::{group::Group, prefetch::UNRECORDED, swap::Facts, working_set::WorkingSets},
    preflight::{self, disk, swap::Swap},
};

/// The device that is swapped to first, as far as its speed goes.
#[derive(Debug, Default)]
pub struct Device {
    /// Which one, and its size, bytes; `None` = no swap, or not looked at yet.
    which: Option<(PathBuf, u64)>,
    pub speed: Speed,
}

#[derive(Debug, Default)]
pub enum Speed {
    #[default]
    NoSwap,
    Underway,
    Known(Disk),
    Unknown(String),
}

/// The recorded working set of one server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    pub bytes: u64,
    pub wakes: u32,
}

impl Recorded {
    pub fn of(sets: &WorkingSets) -> Self {
        Self { bytes: sets.bytes(), wakes: sets.wakes() as u32 }
    }
}

impl Agent {
    /// Measures what is swapped to, if that is another device than at the last look.
    pub(super) fn look_at_device(&mut self) {
        let first = Facts::read().ok().and_then(Facts::first);
        let which = first.as_ref().map(|device| (device.path.clone(), device.size));
        if which == self.device.which {
            return;
        }
        self.device = Device { which, speed: Speed::NoSwap };
        let Some(device) = first else { return };
        self.device.speed = Speed::Underway;
        let (of, outbox) = ((device.path.clone(), device.size), self.outbox.clone());
        self.errand(move || {
            let measured = disk::measure(&device).map_err(|unmeasured| unmeasured.why);
            let _ = outbox.send(Message::DeviceMeasured { of, measured });
        });
    }

    pub(super) fn device_measured(&mut self, of: &(PathBuf, u64), measured: Result<Disk, String>) {
        if self.device.which.as_ref() != Some(of) {
            return; // Another one came meanwhile, and is being measured itself.
        }
        self.device.speed = match measured {
            Ok(disk) => {
                tracing::info!(?disk, "deep sleepers come back from this device");
                Speed::Known(disk)
            }
            Err(why) => {
                tracing::warn!(why, "what a wake from deep costs can't be foretold");
                Speed::Unknown(why)
            }
        };
    }

    /// What preflight says of the servers that may go deep.
    pub(super) fn deep_checks(&self) -> Vec<Check> {
        let mut sleepable = 0;
        let mut checks = vec![];
        for (name, managed) in &self.servers {
            let Some(here) = managed.here() else { continue };
            let (_, size) = memory(managed);
            let Some(deep) = self.deep_wake(managed, size) else { continue };
            sleepable += size;
            checks.push(check(name, size, &Group::new(here.brought.found.cgroup.clone()), deep));
        }
        let swap = Swap::read(Path::new("/proc"), Path::new("/sys"));
        swap.size_check(sleepable).into_iter().chain(checks).collect()
    }

    /// What a wake from deep costs this server; `Err` says why nobody knows, `None`: it may not go deep.
    pub(super) fn deep_wake(&self, managed: &Managed, size: u64) -> Option<Result<DeepWake, String>> {
        (managed.config.limits.floor == Floor::Deep).then_some(())?;
        let disk = match &self.device.speed {
            Speed::Known(disk) => disk,
            Speed::NoSwap => return Some(Err("there is no swap".to_owned())),
            Speed::Underway => return Some(Err("the device is being measured".to_owned())),
            Speed::Unknown(why) => return Some(Err(why.clone())),
        };
        Some(Ok(deep_wake(managed.history.recorded, size, disk, self.pool.short() == 0)))
    }
}

/// Its working set at the device's speed, and one read's latency. A first wake has no record: it brings what comes
/// first in its memory, within a bound.
fn deep_wake(recorded: Recorded, size: u64, disk: &Disk, headroom_reserved: bool) -> DeepWake {
    let working_set_bytes = if recorded.wakes == 0 { size.min(UNRECORDED) } else { recorded.bytes.min(size) };
    let rate = u128::from(disk.read_bytes_per_second.max(1));
    let reading_ns = u128::from(working_set_bytes) * 1_000_000_000 / rate;
    let nanos = reading_ns + u128::from(disk.read_latency_ns);
    DeepWake {
        estimate_ms: nanos.div_ceil(1_000_000) as u64,
        working_set_bytes,
        wakes_recorded: recorded.wakes,
        disk_bytes_per_second: Some(disk.read_bytes_per_second),
        headroom_reserved,
    }
}

/// What stands between one server and deep, and what its wake will cost.
fn check(server: &str, size: u64, group: &Group, deep: Result<DeepWake, String>) -> Check {
    const RAISE: &str = "raise memory.swap.max there; dormouse lifts the server's own";
    let name = format!("server {server}");
    match (group.swap_room(), deep) {
        (Err(error), _) => preflight::warn(&name, format!("can't go deep: {error}"), RAISE),
        (Ok(Some(room)), _) if room < size => {
            let found =
                format!("{} of its {} MiB may be swapped (a cgroup above it)", room >> 20, size >> 20);
            preflight::warn(&name, found, RAISE)
        }
        (_, Err(why)) => {
            let found = format!("what a wake from deep costs is not known: {why}");
            preflight::warn(&name, found, "see the lines on swap and disk speed")
        }
        (_, Ok(wake)) => {
            let (ms, mib) = (wake.estimate_ms, wake.working_set_bytes >> 20);
            let what = match wake.wakes_recorded {
                0 => format!("{mib} MiB at most, no wake recorded yet"),
                _ => format!("a working set of {mib} MiB"),
            };
            preflight::ok(&name, format!("a wake from deep takes about {ms} ms: {what}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn disk(rate: u64, latency: u64) -> Disk {
        Disk { device: "/dev/x".into(), read_bytes_per_second: rate, read_latency_ns: latency }
    }

    #[test]
    fn the_record_at_the_devices_speed_and_one_read_on_top() {
        let recorded = Recorded { bytes: GIB / 4, wakes: 3 };
        let wake = deep_wake(recorded, 2 * GIB, &disk(GIB, 2_000_000), true);
        assert_eq!((wake.estimate_ms, wake.working_set_bytes, wake.wakes_recorded), (252, GIB / 4, 3));
        assert!(wake.headroom_reserved);
    }

    #[test]
    fn without_a_record_what_a_first_wake_brings() {
        let first = deep_wake(Recorded::default(), 2 * GIB, &disk(GIB, 0), false);
        assert_eq!((first.estimate_ms, first.working_set_bytes), (250, 256 << 20));
        let small = deep_wake(Recorded::default(), 1 << 20, &disk(GIB, 100_000), false);
        assert_eq!((small.estimate_ms, small.working_set_bytes), (2, 1 << 20));
    }

    #[test]
    fn a_limit_above_it_is_told_before_the_time() {
        let top = tempfile::tempdir().unwrap();
        let server = top.path().join("s");
        std::fs::create_dir(&server).unwrap();
        std::fs::write(server.join("memory.swap.max"), "0").unwrap();
        let limit = |value: &str| std::fs::write(top.path().join("memory.swap.max"), value).unwrap();
        std::fs::write(top.path().join("memory.swap.current"), "0").unwrap();
        let deep = deep_wake(Recorded { bytes: GIB / 4, wakes: 1 }, GIB, &disk(GIB, 0), true);
        let check = || check("a", GIB, &Group::new(server.clone()), Ok(deep));
        limit("max");
        assert_eq!(check().found, "a wake from deep takes about 250 ms: a working set of 256 MiB");
        limit("0");
        assert!(check().found.contains("forbids swap"), "{:?}", check());
        limit(&(GIB / 2).to_string());
        assert!(check().found.starts_with("512 of its 1024 MiB"), "{:?}", check());
        assert!(check().remedy.unwrap().contains("memory.swap.max"));
    }

    #[test]
    fn no_number_of_a_disks_makes_it_panic() {
        let worst = Recorded { bytes: u64::MAX, wakes: 1 };
        assert!(deep_wake(worst, u64::MAX, &disk(0, u64::MAX), false).estimate_ms > 0);
    }
}
