//! The swap of the machine, as page-outs and wakes see it.

use std::fs;
use std::os::linux::fs::MetadataExt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Partition,
    File,
    /// Compressed memory: what is paged out is still in RAM, smaller.
    Zram,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Device {
    pub path: PathBuf,
    pub kind: Kind,
    /// Bytes.
    pub size: u64,
    /// Bytes.
    pub used: u64,
    pub priority: i32,
    /// The queue's flag of the disk below; `None` where it can't be told (a file on btrfs).
    pub rotational: Option<bool>,
}

/// The machine's swap as page-outs and wakes see it; `preflight` judges it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Facts {
    pub devices: Vec<Device>,
    /// vm.page-cluster: 2^n pages are read ahead at a fault.
    pub page_cluster: u32,
}

/// Bytes that the machine has written to swap devices since it started (`pswpout` of /proc/vmstat: pages full of zeros are
/// not written since Linux 6.12, and not counted); 0 where all swap is compressed memory, which nothing wears out.
pub fn written() -> u64 {
    if Facts::read().is_ok_and(|swap| swap.only_zram()) {
        return 0;
    }
    let text = fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let pages = text.lines().find_map(|line| line.strip_prefix("pswpout ")?.parse::<u64>().ok());
    pages.unwrap_or(0) * super::ranges::page_size()
}

impl Facts {
    pub fn read() -> Result<Self> {
        Self::read_from(Path::new("/proc"), Path::new("/sys"))
    }

    fn read_from(proc: &Path, sys: &Path) -> Result<Self> {
        let path = proc.join("swaps");
        let text = match fs::read_to_string(&path) {
            // A kernel without CONFIG_SWAP.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            other => other.map_err(Error::read(&path))?,
        };
        let mut devices = Vec::new();
        for line in text.lines().skip(1) {
            let device = parse_device(line)
                .ok_or_else(|| Error::Unexpected { path: path.clone(), found: line.to_owned() })?;
            let rotational = rotational(&device, sys);
            devices.push(Device { rotational, ..device });
        }
        let path = proc.join("sys/vm/page-cluster");
        let text = fs::read_to_string(&path).map_err(Error::read(&path))?;
        let page_cluster =
            text.trim().parse().map_err(|_| Error::Unexpected { path, found: text.trim().to_owned() })?;
        Ok(Self { devices, page_cluster })
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.devices.iter().map(|d| d.size).sum()
    }

    /// Bytes.
    pub fn used(&self) -> u64 {
        self.devices.iter().map(|d| d.used).sum()
    }

    /// Bytes.
    pub fn free(&self) -> u64 {
        self.size().saturating_sub(self.used())
    }

    /// From half on the kernel gives a page's slot back at its first fault (`vm_swap_full`), and the next
    /// sleep has to write it again. A sweep by touching is impossible then.
    pub fn half_used(&self) -> bool {
        self.used() * 2 >= self.size()
    }

    /// Page-outs and faults are work of the CPU only, and leave nothing in the swap cache.
    pub fn only_zram(&self) -> bool {
        !self.devices.is_empty() && self.devices.iter().all(|d| d.kind == Kind::Zram)
    }
}

/// Bytes of RAM that all zram devices hold: `mem_used_total` of mm_stat
/// (Documentation/admin-guide/blockdev/zram.rst).
pub fn zram_used() -> u64 {
    let Ok(blocks) = fs::read_dir("/sys/block") else { return 0 };
    let stats = blocks.flatten().filter_map(|b| fs::read_to_string(b.path().join("mm_stat")).ok());
    stats.filter_map(|s| s.split_whitespace().nth(2)?.parse::<u64>().ok()).sum()
}

/// `PATH TYPE SIZE USED PRIORITY`, sizes in KiB; blanks in PATH are written as octal escapes.
fn parse_device(line: &str) -> Option<Device> {
    let mut words = line.split_whitespace();
    let path = PathBuf::from(std::ffi::OsString::from_vec(unescape(words.next()?)));
    let on_disk = match words.next()? {
        "partition" => Kind::Partition,
        "file" => Kind::File,
        _ => return None,
    };
    let zram = path.file_name()?.to_str().is_some_and(|name| name.starts_with("zram"));
    let kind = if zram && on_disk == Kind::Partition { Kind::Zram } else { on_disk };
    let size = words.next()?.parse::<u64>().ok()? << 10;
    let used = words.next()?.parse::<u64>().ok()? << 10;
    let priority = words.next()?.parse().ok()?;
    Some(Device { path, kind, size, used, priority, rotational: None })
}

/// `\040` → a blank, as seq_path(9) writes it.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| byte == b'\\');
        let octal = octal.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        bytes.push(octal.unwrap_or(byte));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    bytes
}

fn rotational(device: &Device, sys: &Path) -> Option<bool> {
    let metadata = fs::metadata(&device.path).ok()?;
    let number = if device.kind == Kind::File { metadata.st_dev() } else { metadata.st_rdev() };
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    let block = sys.join(format!("dev/block/{major}:{minor}"));
    // A partition has no queue of its own: it is a folder inside its disk's.
    let queues = [block.join("queue/rotational"), block.join("../queue/rotational")];
    let flag = queues.iter().find_map(|q| fs::read_to_string(q).ok())?;
    Some(flag.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(kind: Kind, size: u64, used: u64) -> Device {
        Device { path: "/swap".into(), kind, size, used, priority: -2, rotational: Some(false) }
    }

    fn facts(swaps: &str) -> Result<Facts> {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("sys/vm")).unwrap();
        fs::write(dir.path().join("swaps"), swaps).unwrap();
        fs::write(dir.path().join("sys/vm/page-cluster"), "3\n").unwrap();
        Facts::read_from(dir.path(), dir.path())
    }

    #[test]
    fn swaps_are_parsed() {
        let facts = facts(
            "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n\
             /dev/nvme0n1p3                          partition\t8388604\t\t1024\t\t-2\n\
             /var/my\\040swap\\040(deleted)           file\t\t1024\t\t0\t\t-3\n\
             /dev/zram0                              partition\t2048\t\t4\t\t100\n",
        )
        .unwrap();
        let seen: Vec<_> = facts
            .devices
            .iter()
            .map(|d| (d.path.to_str().unwrap(), d.kind, d.size >> 10, d.priority))
            .collect();
        let expected = [
            ("/dev/nvme0n1p3", Kind::Partition, 8_388_604, -2),
            ("/var/my swap (deleted)", Kind::File, 1024, -3),
            ("/dev/zram0", Kind::Zram, 2048, 100),
        ];
        assert_eq!(seen, expected);
        assert_eq!(facts.used(), 1028 << 10);
        assert!(!facts.only_zram());
    }

    #[test]
    fn an_odd_line_is_an_error_and_a_missing_file_is_no_swap() {
        assert!(matches!(facts("Filename\n/swap what 1 2 3\n"), Err(Error::Unexpected { .. })));
        let none = facts("Filename\tType\n").unwrap();
        assert_eq!((none.size(), none.only_zram()), (0, false));
    }

    #[test]
    fn half_is_where_slots_are_lost() {
        let facts = |used| Facts { devices: vec![device(Kind::File, 100, used)], page_cluster: 3 };
        assert!(!facts(49).half_used());
        assert!(facts(50).half_used());
    }
}
