//! The swap of the machine, as page-outs and wakes see it.

use std::cmp::Reverse;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Partition,
    File,
    /// Compressed memory: what is paged out is still in RAM, smaller.
    Zram,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub path: PathBuf,
    pub kind: Kind,
    /// Bytes.
    pub size: u64,
    /// Bytes.
    pub used: u64,
    pub priority: i32,
}

/// What there is, asked again and again during a page-out; `preflight` judges it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub devices: Vec<Device>,
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
        Self::read_from(Path::new("/proc/swaps"))
    }

    fn read_from(path: &Path) -> Result<Self> {
        let text = match fs::read_to_string(path) {
            // A kernel without CONFIG_SWAP.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            other => other.map_err(Error::read(path))?,
        };
        let unexpected = |line: &str| Error::Unexpected { path: path.to_owned(), found: line.to_owned() };
        let devices = text
            .lines()
            .skip(1)
            .map(|line| parse(line).ok_or_else(|| unexpected(line)))
            .collect::<Result<_>>()?;
        Ok(Self { devices })
    }

    /// What is swapped to first.
    pub fn first(self) -> Option<Device> {
        self.devices.into_iter().min_by_key(|device| Reverse(device.priority))
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

/// `PATH TYPE SIZE USED PRIORITY`, sizes in KiB; blanks in PATH are written as octal escapes (proc_swaps(5)).
pub fn parse(line: &str) -> Option<Device> {
    let mut words = line.split_whitespace();
    let path = PathBuf::from(std::ffi::OsString::from_vec(unescape(words.next()?)));
    let on_disk = match words.next()? {
        "partition" => Kind::Partition,
        "file" => Kind::File,
        _ => return None,
    };
    let zram = path.file_name()?.to_str().is_some_and(|name| name.starts_with("zram"));
    let kind = if zram && on_disk == Kind::Partition { Kind::Zram } else { on_disk };
    let mut bytes = || words.next()?.parse::<u64>().ok()?.checked_mul(1024);
    let (size, used) = (bytes()?, bytes()?);
    let priority = words.next()?.parse().ok()?;
    Some(Device { path, kind, size, used, priority })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn device(kind: Kind, size: u64, used: u64) -> Device {
        Device { path: "/swap".into(), kind, size, used, priority: -2 }
    }

    fn facts(swaps: &str) -> Result<Facts> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), swaps).unwrap();
        Facts::read_from(file.path())
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
        assert_eq!(facts.first().unwrap().path, Path::new("/dev/zram0"));
    }

    #[test]
    fn an_odd_line_is_an_error_and_a_missing_file_is_no_swap() {
        assert!(matches!(facts("Filename\n/swap what 1 2 3\n"), Err(Error::Unexpected { .. })));
        let none = facts("Filename\tType\n").unwrap();
        assert_eq!((none.size(), none.only_zram()), (0, false));
    }

    #[test]
    fn half_is_where_slots_are_lost() {
        let facts = |used| Facts { devices: vec![device(Kind::File, 100, used)] };
        assert!(!facts(49).half_used());
        assert!(facts(50).half_used());
    }

    proptest::proptest! {
        #[test]
        fn no_line_makes_it_panic(line: String) {
            let _ = parse(&line);
        }
    }
}
