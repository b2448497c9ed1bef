//! Where cgroup v2 is: alone (`/sys/fs/cgroup`) or beside v1 (hybrid, `/sys/fs/cgroup/unified`), as the
//! mount table says.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

const MOUNTINFO: &str = "/proc/self/mountinfo";

#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "no cgroup v2 mount in {MOUNTINFO}: boot with `systemd.unified_cgroup_hierarchy=1`, or \
         `mount -t cgroup2 none /sys/fs/cgroup/unified`"
    )]
    NoCgroup2,
    #[error(
        "the cgroup v2 mount at {path} shows only a part of the tree ({root}): run the daemon in the host's cgroup \
         namespace with the host's /sys/fs/cgroup mounted"
    )]
    PartOfTree { path: PathBuf, root: PathBuf },
}

/// The controllers that a cgroup's own files can use (`cgroup.controllers`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Controllers {
    /// `cpu.max`: throttling is possible.
    pub cpu: bool,
    /// `memory.current`, `memory.reclaim`, `memory.swap.max`.
    pub memory: bool,
}

impl Controllers {
    /// Reads what is enabled for one cgroup, or for the whole hierarchy at its root.
    pub fn of(cgroup: &Path) -> Result<Self, MountError> {
        let path = cgroup.join("cgroup.controllers");
        let text = std::fs::read_to_string(&path).map_err(|source| MountError::Read { path, source })?;
        let has = |name| text.split_ascii_whitespace().any(|word| word == name);
        Ok(Self { cpu: has("cpu"), memory: has("memory") })
    }
}

/// The root of the cgroup v2 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupRoot {
    pub path: PathBuf,
    pub controllers: Controllers,
}

impl CgroupRoot {
    /// Finds it in this process's mount table.
    pub fn find() -> Result<Self, MountError> {
        let table =
            std::fs::read(MOUNTINFO).map_err(|source| MountError::Read { path: MOUNTINFO.into(), source })?;
        Self::at(&cgroup2_mount(&table)?)
    }

    /// A root that the operator names.
    pub fn at(path: &Path) -> Result<Self, MountError> {
        Ok(Self { path: path.to_owned(), controllers: Controllers::of(path)? })
    }

    /// The directory of a path as `/proc/PID/cgroup` and systemd write it (`/system.slice/game.service`).
    pub fn join(&self, cgroup: &str) -> PathBuf {
        self.path.join(cgroup.trim_start_matches('/'))
    }
}

/// Of several cgroup2 mounts, the first that shows the whole tree (proc_pid_mountinfo(5)).
fn cgroup2_mount(table: &[u8]) -> Result<PathBuf, MountError> {
    let mut part = None;
    for line in table.split(|&byte| byte == b'\n') {
        let mut fields = line.split(|&byte| byte == b' ');
        let (Some(root), Some(path)) = (fields.nth(3), fields.next()) else { continue };
        // The optional fields end at a lone hyphen; the file system's type follows it.
        let Some(kind) = fields.skip_while(|&field| field != b"-").nth(1) else { continue };
        if kind != b"cgroup2" {
            continue;
        }
        let (root, path) = (unescape(root), unescape(path));
        if root == Path::new("/") {
            return Ok(path);
        }
        part.get_or_insert(MountError::PartOfTree { path, root });
    }
    Err(part.unwrap_or(MountError::NoCgroup2))
}

/// Space, tab, newline and backslash stand as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        match tail.first_chunk::<3>() {
            Some(digits) if byte == b'\\' && digits.iter().all(|digit| (b'0'..=b'7').contains(digit)) => {
                bytes.push(digits.iter().fold(0u8, |value, digit| (value << 3) | (digit - b'0')));
                rest = &tail[3..];
            }
            _ => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &[u8] = b"31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 master:2 - cgroup2 cgroup2 rw\n";

    #[test]
    fn pure_and_hybrid_mounts_are_found() {
        assert_eq!(cgroup2_mount(HYBRID).unwrap(), Path::new("/sys/fs/cgroup/unified"));
        let pure = b"29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(cgroup2_mount(pure).unwrap(), Path::new("/sys/fs/cgroup"));
        let odd = b"29 23 0:26 / /mnt/my\\040groups\\134x rw - cgroup2 none rw\n";
        assert_eq!(cgroup2_mount(odd).unwrap(), Path::new("/mnt/my groups\\x"));
    }

    #[test]
    fn a_whole_tree_is_preferred_to_a_part_and_none_is_an_error_with_a_remedy() {
        let part = b"29 23 0:26 /../.. /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        let error = cgroup2_mount(part).unwrap_err();
        assert!(error.to_string().contains("host's cgroup namespace"), "{error}");
        let both = [part.as_slice(), HYBRID].concat();
        assert_eq!(cgroup2_mount(&both).unwrap(), Path::new("/sys/fs/cgroup/unified"));
        let error = cgroup2_mount(b"31 23 0:28 / / rw - ext4 /dev/vda rw\n").unwrap_err();
        assert!(error.to_string().contains("mount -t cgroup2"), "{error}");
    }

    #[test]
    fn this_machine_has_one() {
        let root = CgroupRoot::find().unwrap();
        assert!(root.path.join("cgroup.procs").exists());
        assert_eq!(root.join("/a/b"), root.path.join("a/b"));
    }

    proptest::proptest! {
        #[test]
        fn no_table_makes_it_panic(table: Vec<u8>) {
            let _ = cgroup2_mount(&table);
        }
    }
}
