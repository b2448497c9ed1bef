//! How fast deep sleepers come back: a bounded read past the page cache, behind everybody else's.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dormouse_api::preflight::{Check, Disk};

use super::swap::device_number;
use super::{ok, warn};
use crate::memory::{
    swap::{Device, Kind},
    sys,
};

const NAME: &str = "disk speed";
const MOST_BYTES: u64 = 64 << 20;
const MOST_TIME: Duration = Duration::from_millis(800);
/// Single pages, read from all over the device for their latency.
const PAGES: u64 = 32;
const MOST_TIME_FOR_PAGES: Duration = Duration::from_millis(200);
/// Faster than any disk of today (PCIe 6 x4 has 30 GB/s): holes of a file read as zeros.
const BELIEVABLE: u64 = 32 << 30;
/// The fastest SSD ever sold answers a page in some 10 µs.
const BELIEVABLE_PAGE_NS: u64 = 2_000;
/// One read; deep wakes read in steps of the same size.
const STEP: usize = 2 << 20;
/// O_DIRECT wants memory and lengths in the disk's blocks; none is larger than a page.
const ALIGNED: usize = 4096;

/// Why a device's speed is not known, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmeasured {
    pub why: String,
    pub remedy: &'static str,
}

/// Reads from a device that is swapped to: a second and 64 MiB at most, in the idle I/O class.
///
/// # Errors
/// It can't be read, or no disk answered.
pub fn measure(device: &Device) -> Result<Disk, Unmeasured> {
    // A container may not reach the host's disk; the file is better than nothing.
    let below = disk_below(device).and_then(|disk| Some((behind(&disk).ok()?, disk)));
    let (from, speed) = match below {
        Some((speed, disk)) => (disk, Ok(speed)),
        None => (device.path.clone(), behind(&device.path)),
    };
    let device = from.display();
    match speed {
        Ok(speed) if speed.bytes_per_second > BELIEVABLE || speed.page_ns < BELIEVABLE_PAGE_NS => {
            Err(Unmeasured {
                why: format!("{device} was never written where it was read: no disk answered"),
                remedy: "look again when servers have slept deep",
            })
        }
        Ok(speed) => Ok(Disk {
            device: device.to_string(),
            read_bytes_per_second: speed.bytes_per_second,
            read_latency_ns: speed.page_ns,
        }),
        Err(error) => Err(Unmeasured {
            why: format!("{device} can't be read: {error}"),
            remedy: "the time of a deep wake can't be foretold; is the daemon root?",
        }),
    }
}

/// [`measure`] for people.
pub fn check(measured: &Result<Disk, Unmeasured>) -> Check {
    match measured {
        Ok(disk) => {
            let (rate, page) = (disk.read_bytes_per_second >> 20, disk.read_latency_ns / 1000);
            ok(NAME, format!("{}: {rate} MiB/s, read in sequence; a page in {page} µs", disk.device))
        }
        Err(unmeasured) => warn(NAME, &unmeasured.why, unmeasured.remedy),
    }
}

/// The disk below a swap file, read in its place: blocks of the file that were never written through its
/// file system (swap writes past it) read as zeros without any disk. `None` where there is none (btrfs).
fn disk_below(device: &Device) -> Option<PathBuf> {
    if device.kind != Kind::File {
        return None;
    }
    let (major, minor) = device_number(device)?;
    let text = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uevent")).ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    Some(Path::new("/dev").join(name))
}

#[derive(Clone, Copy, Debug)]
struct Speed {
    bytes_per_second: u64,
    page_ns: u64,
}

/// On a thread of its own, which may have the idle class for good.
fn behind(path: &Path) -> std::io::Result<Speed> {
    std::thread::scope(|scope| {
        let read = scope.spawn(|| {
            if let Err(error) = sys::idle_io() {
                tracing::debug!(%error, "no idle I/O class: the disk is measured beside the others' reads");
            }
            read(path)
        });
        read.join().unwrap_or_else(|_| Err(std::io::Error::other("the reading thread ended")))
    })
}

fn read(path: &Path) -> std::io::Result<Speed> {
    let mut file = File::options().read(true).custom_flags(libc::O_DIRECT).open(path)?;
    let mut memory = vec![0; STEP + ALIGNED];
    let start = memory.as_ptr().align_offset(ALIGNED);
    let buffer = &mut memory[start..start + STEP];
    // Pages first: what was read in sequence would come from the disk's own memory.
    let page_ns = read_pages(&mut file, &mut buffer[..ALIGNED])?;
    file.seek(SeekFrom::Start(0))?;
    let (begun, mut bytes) = (Instant::now(), 0);
    while bytes < MOST_BYTES && begun.elapsed() < MOST_TIME {
        match file.read(buffer)? {
            0 => break,
            read => bytes += read as u64,
        }
    }
    let nanos = begun.elapsed().as_nanos().max(1);
    match bytes {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        bytes => Ok(Speed { bytes_per_second: (u128::from(bytes) * 1_000_000_000 / nanos) as u64, page_ns }),
    }
}

/// The median time of pages from places as far apart as can be.
fn read_pages(file: &mut File, page: &mut [u8]) -> std::io::Result<u64> {
    let pages = file.seek(SeekFrom::End(0))? / ALIGNED as u64;
    let until = Instant::now() + MOST_TIME_FOR_PAGES;
    let mut times = vec![];
    for number in 0..PAGES {
        let at = pages * number / PAGES;
        file.seek(SeekFrom::Start(at * ALIGNED as u64))?;
        let begun = Instant::now();
        if file.read(page)? == 0 {
            break;
        }
        times.push(begun.elapsed().as_nanos() as u64);
        if Instant::now() > until {
            break;
        }
    }
    times.sort_unstable();
    Ok(times.get(times.len() / 2).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_on_a_disk_is_measured_and_what_is_not_there_is_said() {
        // Not on tmpfs, which has no O_DIRECT on older kernels.
        let file = tempfile::NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        std::fs::write(file.path(), vec![1; 4 << 20]).unwrap();
        let device = |path: &Path| Device {
            path: path.to_owned(),
            kind: Kind::File,
            size: 4 << 20,
            used: 0,
            priority: -2,
        };
        let begun = Instant::now();
        let measured = measure(&device(file.path()));
        let disk = measured.as_ref().unwrap();
        assert!(disk.read_bytes_per_second > 0 && disk.read_latency_ns > 0, "{disk:?}");
        assert_eq!(check(&measured).result, dormouse_api::preflight::CheckResult::Ok);
        // The bounds hold for each read's beginning; a loaded machine may take long for the last of each.
        assert!(begun.elapsed() < Duration::from_secs(20));
        let missing = measure(&device(Path::new("/no/such")));
        assert!(check(&missing).found.contains("/no/such can't be read"), "{missing:?}");
    }
}
