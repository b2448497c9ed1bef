//! What a server really weighs. The product never looks here: without a v2 memory controller it can't; the bench makes a
//! v1 cgroup of its own, which counts every page.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use dormouse_tests::owner;

/// A child of the v1 memory controller; removed on drop.
pub struct Weight(PathBuf);

impl Weight {
    /// `None` where v1's controller is not mounted.
    pub fn new() -> Result<Option<Self>> {
        let root = Path::new("/sys/fs/cgroup/memory");
        if !root.join("cgroup.procs").exists() {
            return Ok(None);
        }
        let path = root.join(owner::unique("weight"));
        fs::create_dir(&path)?;
        Ok(Some(Self(path)))
    }

    /// Whoever writes "0" here is weighed from then on.
    pub fn procs(&self) -> Result<File> {
        Ok(File::options().write(true).open(self.0.join("cgroup.procs"))?)
    }

    /// Bytes charged, swap cache and file pages included.
    pub fn usage(&self) -> Result<u64> {
        let text = fs::read_to_string(self.0.join("memory.usage_in_bytes"))?;
        Ok(text.trim().parse()?)
    }

    /// Bytes of file pages.
    pub fn files(&self) -> Result<u64> {
        let text = fs::read_to_string(self.0.join("memory.stat"))?;
        let of = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.parse::<u64>().ok());
        let (active, inactive) = (of("active_file "), of("inactive_file "));
        Ok(active.context("active_file")? + inactive.context("inactive_file")?)
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        for _ in 0..200 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        eprintln!("bench: {} stays", self.0.display());
    }
}
