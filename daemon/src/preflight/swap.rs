//! What deep sleepers are written to.

use std::os::linux::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use dormouse_api::preflight::Check;

use super::{ok, warn};
use crate::memory::swap::{self, Kind};

const GIB: f64 = (1_u64 << 30) as f64;
/// The kernel's default: 2^3 pages are read ahead at a fault, which pays on a disk.
const PAGE_CLUSTER: u32 = 3;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub swap: swap::Device,
    /// The flag of the disk below; `None` where it can't be told.
    pub rotational: Option<bool>,
    /// By dm-crypt, on any layer below; `None` where it can't be told.
    pub encrypted: Option<bool>,
}

/// The machine's swap; the device that is used first comes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    pub devices: Vec<Device>,
    pub page_cluster: Option<u32>,
}

impl Swap {
    /// What can't be read is not there.
    pub fn read(proc: &Path, sys: &Path) -> Self {
        let swaps = std::fs::read_to_string(proc.join("swaps")).unwrap_or_default();
        let page_cluster = std::fs::read_to_string(proc.join("sys/vm/page-cluster"));
        let mut devices: Vec<_> = swaps.lines().skip(1).filter_map(swap::parse).collect();
        devices.sort_by_key(|device| std::cmp::Reverse(device.priority));
        let devices = devices.into_iter().map(|device| Device::look(device, sys)).collect();
        Self { devices, page_cluster: page_cluster.ok().and_then(|text| text.trim().parse().ok()) }
    }

    pub fn checks(&self) -> Vec<Check> {
        if self.devices.is_empty() {
            let remedy = "swapon a partition of an NVMe disk, twice as large as the memory that may sleep";
            return vec![warn("swap", "none: servers doze, but none goes deep", remedy)];
        }
        let mut checks: Vec<_> = self.devices.iter().map(Device::check).collect();
        let zram = |device: &Device| device.swap.kind == Kind::Zram;
        if self.devices.iter().any(zram) && !self.devices.iter().all(zram) {
            let found = "zram and a disk: what is pushed from one to the other is paged out twice";
            checks.push(warn("swap mix", found, "keep one of them (swapoff)"));
        }
        // On zram a read ahead is wasted work.
        let wanted = if self.devices.iter().all(zram) { 0 } else { PAGE_CLUSTER };
        checks.extend(self.encryption());
        checks.push(match self.page_cluster {
            Some(is) if is == wanted => ok("page-cluster", is.to_string()),
            Some(is) => warn(
                "page-cluster",
                format!("{is} instead of {wanted}"),
                format!("sysctl vm.page-cluster={wanted}"),
            ),
            None => warn("page-cluster", "can't be read", format!("sysctl vm.page-cluster={wanted}")),
        });
        checks
    }

    /// Swap holds what servers had in their memory: passwords, tokens, what players typed.
    fn encryption(&self) -> Option<Check> {
        let name = "swap encryption";
        let on_disk: Vec<&Device> =
            self.devices.iter().filter(|device| device.swap.kind != Kind::Zram).collect();
        let plain: Vec<String> = on_disk
            .iter()
            .filter(|device| device.encrypted != Some(true))
            .map(|device| device.swap.path.display().to_string())
            .collect();
        if on_disk.is_empty() {
            None
        } else if plain.is_empty() {
            Some(ok(name, "what sleepers leave on disk can't be read there (dm-crypt)"))
        } else {
            let found =
                format!("what sleepers hold can be read on the disk: {} not on dm-crypt", plain.join(", "));
            let remedy = "a line of /etc/crypttab with a key that is new at every boot: `swap /dev/PARTITION \
                          /dev/urandom swap,cipher=aes-xts-plain64,size=512`, and /dev/mapper/swap in /etc/fstab";
            Some(warn(name, found, remedy))
        }
    }

    /// Against the memory of all servers that may go deep, bytes. From half of the swap on the kernel gives a page's slot
    /// back at its first fault (`vm_swap_full`), and without `memory.reclaim` no more than this half can be swept.
    pub fn size_check(&self, sleepable: u64) -> Option<Check> {
        let size: u64 = self.devices.iter().map(|device| device.swap.size).sum();
        if size == 0 || sleepable == 0 {
            return None;
        }
        let gib = |bytes: u64| bytes as f64 / GIB;
        let found = format!("{:.1} GiB for {:.1} GiB that may go deep", gib(size), gib(sleepable));
        Some(if size < sleepable.saturating_mul(2) {
            let remedy = format!("add {:.1} GiB: twice what may sleep", gib(sleepable * 2 - size));
            warn("swap size", found, remedy)
        } else {
            ok("swap size", found)
        })
    }
}

impl Device {
    fn look(swap: swap::Device, sys: &Path) -> Self {
        Self { rotational: rotational(&swap, sys), encrypted: encrypted(&swap, sys), swap }
    }

    fn check(&self) -> Check {
        let kind = match self.swap.kind {
            Kind::Partition => "partition",
            Kind::File => "file",
            Kind::Zram => "zram",
        };
        let disk = match self.rotational {
            Some(true) => ", rotational",
            Some(false) => ", not rotational",
            None => "",
        };
        let (size, used) = (self.swap.size as f64 / GIB, self.swap.used as f64 / GIB);
        let name = format!("swap {}", self.swap.path.display());
        let found = format!("{kind} of {size:.1} GiB, {used:.1} used{disk}");
        // From half on the kernel gives a page's slot back at its first fault (vm_swap_full).
        if self.swap.used * 2 >= self.swap.size {
            warn(&name, found, "half full: every sleep writes its pages anew; add swap")
        } else if self.rotational == Some(true) {
            let remedy = "if the disk is virtual or an SSD, write 0 to its /sys/block/DISK/queue/rotational before \
                          swapon; a real hard disk is too slow for deep";
            warn(&name, found, remedy)
        } else {
            ok(&name, found)
        }
    }
}

/// The number of the block device that the swap is on.
pub fn device_number(device: &swap::Device) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(&device.path).ok()?;
    let number = if device.kind == Kind::File { metadata.st_dev() } else { metadata.st_rdev() };
    Some((nix::sys::stat::major(number), nix::sys::stat::minor(number)))
}

fn rotational(device: &swap::Device, sys: &Path) -> Option<bool> {
    let (major, minor) = device_number(device)?;
    let block = sys.join(format!("dev/block/{major}:{minor}"));
    // A partition has no queue of its own: it is a folder inside its disk's.
    let queues = [block.join("queue/rotational"), block.join("../queue/rotational")];
    queues.iter().find_map(|queue| std::fs::read_to_string(queue).ok()).map(|flag| flag.trim() == "1")
}

/// Whether the device, or one that it lies on, is dm-crypt's (its uuid says so: `CRYPT-LUKS2-…`, `CRYPT-PLAIN-…`).
fn encrypted(device: &swap::Device, sys: &Path) -> Option<bool> {
    let (major, minor) = device_number(device)?;
    let block = sys.join(format!("dev/block/{major}:{minor}"));
    block.exists().then(|| crypt_below(&block, LAYERS))
}

/// Logical volumes on RAID on a partition: more layers than this are a loop.
const LAYERS: u32 = 8;

fn crypt_below(block: &Path, layers: u32) -> bool {
    let uuid = std::fs::read_to_string(block.join("dm/uuid")).unwrap_or_default();
    if uuid.starts_with("CRYPT-") {
        return true;
    }
    let Some(layers) = layers.checked_sub(1) else { return false };
    let Ok(below) = std::fs::read_dir(block.join("slaves")) else { return false };
    let below: Vec<PathBuf> = below.flatten().map(|entry| entry.path()).collect();
    // Striped over a plain and an encrypted disk, half of it can be read.
    !below.is_empty() && below.iter().all(|block| crypt_below(block, layers))
}

#[cfg(test)]
mod tests {
    use dormouse_api::preflight::CheckResult::{Ok, Warn};

    use super::*;

    fn swap(swaps: &str, page_cluster: &str) -> Swap {
        let proc = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(proc.path().join("sys/vm")).unwrap();
        std::fs::write(proc.path().join("swaps"), format!("Filename Type Size Used Priority\n{swaps}"))
            .unwrap();
        std::fs::write(proc.path().join("sys/vm/page-cluster"), page_cluster).unwrap();
        Swap::read(proc.path(), proc.path())
    }

    #[test]
    fn devices_are_read_and_the_first_used_comes_first() {
        let swap = swap(
            "/no/such/file\\040here file 1048576 1024 -2\n/dev/zram0 partition 2048 4 100\nodd\n/x y z 1 2\n",
            "3\n",
        );
        let seen: Vec<_> = swap
            .devices
            .iter()
            .map(|device| (device.swap.path.to_str().unwrap(), device.swap.kind))
            .collect();
        assert_eq!(seen, [("/dev/zram0", Kind::Zram), ("/no/such/file here", Kind::File)]);
        assert_eq!((swap.devices[1].swap.size, swap.devices[1].swap.used), (1 << 30, 1 << 20));
        let names: Vec<_> = swap.checks().into_iter().map(|check| (check.name, check.result)).collect();
        assert!(
            names.contains(&("swap mix".to_owned(), Warn))
                && names.contains(&("page-cluster".to_owned(), Ok))
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_remedy() {
        assert!(swap("", "3").checks()[0].found.contains("none"));
        let full = swap("/no/such file 100 50 -2\n", "0\n").checks();
        assert!(full[0].remedy.as_ref().unwrap().contains("half full"));
        let cluster = full.iter().find(|check| check.name == "page-cluster").unwrap();
        assert_eq!(cluster.remedy.as_deref(), Some("sysctl vm.page-cluster=3"));
        let swap = swap::Device { path: "/swap".into(), kind: Kind::File, size: 100, used: 0, priority: 0 };
        let device = Device { swap, rotational: Some(true), encrypted: None };
        assert_eq!(device.check().result, Warn);
        assert_eq!(Device { rotational: Some(false), ..device }.check().result, Ok);
    }

    #[test]
    fn swap_is_twice_what_may_sleep() {
        let four = swap("/no/such file 4194304 0 -2\n", "3");
        let check = |gib: u64| four.size_check(gib << 30).unwrap();
        assert_eq!(check(2).result, Ok);
        assert_eq!(check(3).remedy.as_deref(), Some("add 2.0 GiB: twice what may sleep"));
        assert_eq!(four.size_check(0), None, "nobody may");
        assert_eq!(swap("", "3").size_check(1 << 30), None, "another check says that there is none");
    }

    #[test]
    fn dm_crypt_is_found_below_a_logical_volume() {
        let sys = tempfile::tempdir().unwrap();
        let make = |path: &str, uuid: &str| {
            let folder = sys.path().join(path).join("dm");
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("uuid"), uuid).unwrap();
            folder.parent().unwrap().to_owned()
        };
        let crypt = make("crypt", "CRYPT-LUKS2-0123-swap\n");
        let volume = make("volume", "LVM-abc\n");
        assert!(crypt_below(&crypt, LAYERS) && !crypt_below(&volume, LAYERS));
        std::fs::create_dir(volume.join("slaves")).unwrap();
        std::os::unix::fs::symlink(&crypt, volume.join("slaves/dm-0")).unwrap();
        assert!(crypt_below(&volume, LAYERS));
        // Half on a plain disk, and one that is its own layer.
        std::os::unix::fs::symlink(&volume, volume.join("slaves/dm-1")).unwrap();
        assert!(!crypt_below(&volume, LAYERS));
    }

    #[test]
    fn plain_swap_is_advised_to_be_encrypted() {
        let named = |swap: &Swap| swap.checks().into_iter().find(|check| check.name == "swap encryption");
        let plain = named(&swap("/no/such file 100 0 -2\n", "3")).unwrap();
        assert!(plain.remedy.unwrap().contains("/etc/crypttab"));
        let mut encrypted = swap("/no/such file 100 0 -2\n", "3");
        encrypted.devices[0].encrypted = Some(true);
        assert_eq!(named(&encrypted).unwrap().result, Ok);
        assert_eq!(named(&swap("/dev/zram0 partition 100 0 -2\n", "0")), None);
    }
}
