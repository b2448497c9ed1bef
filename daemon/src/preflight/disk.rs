//! How fast deep sleepers come back: a bounded read past the page cache.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dormouse_api::preflight::{Check, Disk};

use super::swap::{self, Device, Kind};
use super::{ok, warn};

const NAME: &str = "disk speed";
const MOST_BYTES: u64 = 256 << 20;
const MOST_TIME: Duration = Duration::from_secs(1);
/// Faster than any disk of today (PCIe 6 x4 has 30 GB/s): holes of a file read as zeros.
const BELIEVABLE: u64 = 32 << 30;
/// One read; deep wakes read in steps of the same size.
const STEP: usize = 2 << 20;
/// O_DIRECT wants memory and lengths in the disk's blocks; none is larger than a page.
const ALIGNED: usize = 4096;

/// Reads from the device that is swapped to first.
pub fn measure(device: Option<&Device>) -> (Option<Disk>, Option<Check>) {
    let Some(device) = device else { return (None, None) };
    // A container may not reach the host's disk; the file is better than nothing.
    let below = disk_below(device).and_then(|disk| Some((read(&disk).ok()?, disk)));
    let (from, result) = match below {
        Some((speed, disk)) => (disk, Ok(speed)),
        None => (device.path.clone(), read(&device.path)),
    };
    match result {
        Ok(speed) if speed > BELIEVABLE => {
            let found = format!("{} was never written where it was read: no disk answered", from.display());
            (None, Some(warn(NAME, found, "look again when servers have slept deep")))
        }
        Ok(speed) => {
            let found = format!("{}: {} MiB/s, read in sequence", from.display(), speed >> 20);
            let disk = Disk { device: from.display().to_string(), read_bytes_per_second: speed };
            (Some(disk), Some(ok(NAME, found)))
        }
        Err(error) => {
            let found = format!("{} can't be read: {error}", from.display());
            (None, Some(warn(NAME, found, "the time of a deep wake can't be foretold; is the daemon root?")))
        }
    }
}

/// The disk below a swap file, read in its place: blocks of the file that were never written through its
/// file system (swap writes past it) read as zeros without any disk. `None` where there is none (btrfs).
fn disk_below(device: &Device) -> Option<PathBuf> {
    if device.kind != Kind::File {
        return None;
    }
    let (major, minor) = swap::device_number(device)?;
    let text = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uevent")).ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    Some(Path::new("/dev").join(name))
}

/// Bytes per second.
fn read(path: &Path) -> std::io::Result<u64> {
    let mut file = File::options().read(true).custom_flags(libc::O_DIRECT).open(path)?;
    let mut memory = vec![0; STEP + ALIGNED];
    let start = memory.as_ptr().align_offset(ALIGNED);
    let buffer = &mut memory[start..start + STEP];
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
        bytes => Ok((u128::from(bytes) * 1_000_000_000 / nanos) as u64),
    }
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
            rotational: None,
        };
        let (disk, check) = measure(Some(&device(file.path())));
        assert!(disk.is_some_and(|disk| disk.read_bytes_per_second > 0), "{check:?}");
        let (disk, check) = measure(Some(&device(Path::new("/no/such"))));
        assert!(disk.is_none() && check.unwrap().found.contains("/no/such can't be read"));
        assert_eq!(measure(None), (None, None));
    }
}
