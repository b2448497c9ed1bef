//! What the memory work needs of a server's cgroup (v2). On a hybrid mount the memory controller is missing
//! there: then nothing is limited and nothing is counted.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use procfs::Current;

use super::{Error, Result};

/// Writes a cgroup file. The caller's own, so that the old value is in the undo log first.
pub type WriteLimit<'a> = dyn FnMut(&Path, &str) -> io::Result<()> + 'a;

#[derive(Clone, Debug)]
pub struct Group {
    path: PathBuf,
}

impl Group {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All processes in it and below: a freeze reaches them all.
    pub fn pids(&self) -> Result<BTreeSet<i32>> {
        let mut pids = BTreeSet::new();
        for group in self.with_descendants()? {
            let path = group.join("cgroup.procs");
            let text = match fs::read_to_string(&path) {
                Ok(text) => text,
                // A threaded cgroup: its processes stand in the parent that isn't.
                Err(e) if e.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => continue,
                Err(e) if gone(&e) && group != self.path => continue,
                Err(e) => return Err(Error::Read { path, source: e }),
            };
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
        // 0 is a process of another pid namespace.
        pids.remove(&0);
        Ok(pids)
    }

    pub fn is_frozen(&self) -> Result<bool> {
        Ok(self.flat("cgroup.events", "frozen")? == Some(1))
    }

    pub fn has_memory_controller(&self) -> bool {
        self.file("memory.current").exists()
    }

    /// Bytes charged to it, swap cache included, swap not.
    pub fn current(&self) -> Result<u64> {
        let text = self.read("memory.current")?;
        text.trim().parse().map_err(|_| Error::Unexpected { path: self.file("memory.current"), found: text })
    }

    /// One field of memory.stat, in bytes; `None` where the kernel doesn't have it.
    pub fn stat(&self, field: &str) -> Result<Option<u64>> {
        self.flat("memory.stat", field)
    }

    /// Lets it swap: memory.swap.max = max on it and below. runc writes the file at every resize, so this is
    /// done before every page-out.
    pub fn lift_swap_limit(&self, write: &mut WriteLimit<'_>) -> Result<()> {
        for group in self.with_descendants()? {
            let path = group.join("memory.swap.max");
            match fs::read_to_string(&path) {
                Ok(limit) if limit.trim() != "max" => {
                    write(&path, "max").map_err(|source| Error::Write { path, source })?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Bytes of swap that the cgroups above still let it use; `None` = unlimited.
    pub fn swap_room(&self) -> Result<Option<u64>> {
        let mut room: Option<u64> = None;
        for group in self.path.ancestors().skip(1) {
            // The root has no such file.
            let Ok(limit) = fs::read_to_string(group.join("memory.swap.max")) else { break };
            let Ok(limit) = limit.trim().parse::<u64>() else { continue };
            if limit == 0 {
                return Err(Error::SwapForbidden { cgroup: group.to_owned() });
            }
            let used = fs::read_to_string(group.join("memory.swap.current")).unwrap_or_default();
            let left = limit.saturating_sub(used.trim().parse().unwrap_or(0));
            room = Some(room.map_or(left, |room| room.min(left)));
        }
        Ok(room)
    }

    /// Bytes that may be brought into it: what the cgroups (its own too) and the machine have left. A prefetch beyond
    /// memory.max would push out what it has just brought, without a word (seen on 6.12).
    pub fn room(&self) -> u64 {
        let number = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        let left = |group: &Path| {
            let limit = number(group.join("memory.max"))?;
            Some(limit.saturating_sub(number(group.join("memory.current"))?))
        };
        let available = procfs::Meminfo::current().ok().and_then(|info| info.mem_available);
        self.path.ancestors().filter_map(left).chain(available).min().unwrap_or(u64::MAX)
    }

    /// Asks the kernel to take `bytes` by memory.reclaim. Its errno says nothing (EAGAIN comes also after a
    /// full success): the caller looks at what changed.
    pub fn reclaim(&self, bytes: u64, swappiness: &str) {
        let _ = fs::write(self.file("memory.reclaim"), format!("{bytes} swappiness={swappiness}"));
    }

    /// The word that makes memory.reclaim take anonymous memory only, if this kernel knows one (`max` since
    /// 6.16, a number since 6.12). Without it, it would throw out file pages first. Asking for 0 bytes
    /// changes nothing.
    pub fn anonymous_only(&self) -> Option<&'static str> {
        let path = self.file("memory.reclaim");
        ["max", "200"]
            .into_iter()
            .find(|word| path.exists() && fs::write(&path, format!("0 swappiness={word}")).is_ok())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.file(name);
        fs::read_to_string(&path).map_err(Error::read(path))
    }

    /// A field of a flat-keyed file (`KEY VALUE` a line).
    fn flat(&self, file: &str, key: &str) -> Result<Option<u64>> {
        let text = self.read(file)?;
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        let Some(value) = line else { return Ok(None) };
        let parsed = value.trim().parse().map(Some);
        parsed.map_err(|_| Error::Unexpected { path: self.file(file), found: value.to_owned() })
    }

    fn with_descendants(&self) -> Result<Vec<PathBuf>> {
        let mut groups = vec![self.path.clone()];
        let mut next = 0;
        while let Some(group) = groups.get(next).cloned() {
            next += 1;
            let entries = match fs::read_dir(&group) {
                Ok(entries) => entries,
                Err(e) if gone(&e) && group != self.path => continue,
                Err(e) => return Err(Error::Read { path: group, source: e }),
            };
            let folders = entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
            groups.extend(folders.map(|e| e.path()));
        }
        Ok(groups)
    }
}

fn gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::ENOENT | Errno::ENODEV))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of fixture files: (path below the root, content).
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    #[test]
    fn processes_of_nested_cgroups_are_found() {
        let dir = tree(&[("s/cgroup.procs", "12\n0\n7\n"), ("s/a/b/cgroup.procs", "99\n"), ("s/a/x", "")]);
        fs::write(dir.path().join("s/a/cgroup.procs"), "").unwrap();
        let pids = Group::new(dir.path().join("s")).pids().unwrap();
        assert_eq!(pids.into_iter().collect::<Vec<_>>(), [7, 12, 99]);
        assert!(matches!(Group::new(dir.path().join("none")).pids(), Err(Error::Read { .. })));
    }

    #[test]
    fn only_a_limit_that_limits_is_lifted_and_through_the_caller() {
        let dir = tree(&[("s/memory.swap.max", "0\n"), ("s/a/memory.swap.max", "max\n"), ("s/b/x", "")]);
        let mut written = Vec::new();
        let group = Group::new(dir.path().join("s"));
        group
            .lift_swap_limit(&mut |path: &Path, value: &str| {
                written.push((path.to_owned(), value.to_owned()));
                Ok(())
            })
            .unwrap();
        assert_eq!(written, [(dir.path().join("s/memory.swap.max"), "max".to_owned())]);
        let refused = group.lift_swap_limit(&mut |_: &Path, _: &str| Err(io::Error::other("no")));
        assert!(matches!(refused, Err(Error::Write { .. })));
    }

    #[test]
    fn the_cgroups_above_decide_how_much_may_be_swapped() {
        let dir = tree(&[
            ("top/memory.swap.max", "1000\n"),
            ("top/memory.swap.current", "100\n"),
            ("top/mid/memory.swap.max", "max\n"),
            ("top/mid/s/memory.swap.max", "0\n"),
        ]);
        let group = Group::new(dir.path().join("top/mid/s"));
        assert_eq!(group.swap_room().unwrap(), Some(900), "its own limit is lifted, not counted");
        fs::write(dir.path().join("top/memory.swap.max"), "max").unwrap();
        assert_eq!(group.swap_room().unwrap(), None);
        fs::write(dir.path().join("top/mid/memory.swap.max"), "0").unwrap();
        let forbidden = group.swap_room().unwrap_err().to_string();
        assert!(forbidden.contains("top/mid forbids swap"), "{forbidden}");
    }

    #[test]
    fn the_tightest_limit_says_how_much_may_come_back() {
        let dir = tree(&[
            ("top/memory.max", "1000\n"),
            ("top/memory.current", "100\n"),
            ("top/s/memory.max", "max\n"),
            ("top/s/memory.current", "90\n"),
        ]);
        let group = Group::new(dir.path().join("top/s"));
        assert_eq!(group.room(), 900);
        fs::write(dir.path().join("top/s/memory.max"), "120").unwrap();
        assert_eq!(group.room(), 30);
        let machine = Group::new(dir.path()).room();
        assert!(machine > 1 << 20 && machine < 1 << 50, "{machine}");
    }

    #[test]
    fn counters_and_states_are_read() {
        let dir = tree(&[
            ("cgroup.events", "populated 1\nfrozen 1\n"),
            ("memory.current", "4096\n"),
            ("memory.stat", "swapcached_other 3\nswapcached 8192\nfile 77\n"),
        ]);
        let group = Group::new(dir.path());
        assert!(group.is_frozen().unwrap());
        assert!(group.has_memory_controller());
        assert_eq!(group.current().unwrap(), 4096);
        assert_eq!(group.stat("swapcached").unwrap(), Some(8192));
        assert_eq!(group.stat("none").unwrap(), None);
        assert_eq!(group.anonymous_only(), None, "no memory.reclaim");
    }
}
