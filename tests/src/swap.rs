//! A swap file for machines that have none: deep sleepers must go somewhere.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

use crate::owner;

/// Swap is the whole machine's: whoever makes some or measures it takes turns by this lock.
const TURN: &str = "/tmp/dormouse-swap.lock";

/// The machine's swap: what was there, or a file that is gone with this value.
pub struct Swap {
    file: Option<(PathBuf, TempDir)>,
    _turn: Flock<File>,
}

impl Swap {
    /// Takes the turn, and makes a swap file of `mib` MiB if the machine has no swap.
    pub fn ensure(mib: u64) -> Result<Self> {
        let turn = turn()?;
        if devices()?.is_empty() { Self::file(mib, turn) } else { Ok(Self { file: None, _turn: turn }) }
    }

    /// Takes the turn, and makes a swap file of `mib` MiB that is used before any other swap.
    pub fn make(mib: u64) -> Result<Self> {
        Self::file(mib, turn()?)
    }

    fn file(mib: u64, turn: Flock<File>) -> Result<Self> {
        let dir = TempDir::with_prefix_in(format!("{}-", owner::unique("swap")), "/var/tmp")?;
        let path = dir.path().join("swap");
        run(Command::new("fallocate").arg("-l").arg(format!("{mib}M")).arg(&path))?;
        run(Command::new("chmod").arg("600").arg(&path))?;
        run(Command::new("/sbin/mkswap").arg(&path))?;
        run(Command::new("/sbin/swapon").args(["--priority", "100"]).arg(&path))?;
        Ok(Self { file: Some((path, dir)), _turn: turn })
    }

    /// The file that was made; `None`: the machine has swap of its own.
    pub fn made(&self) -> Option<&Path> {
        self.file.as_ref().map(|(path, _)| path.as_path())
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        if let Some((path, _)) = &self.file {
            swap_off(path);
        }
    }
}

/// Takes away swap files whose run has ended.
pub(crate) fn sweep() {
    for path in devices().unwrap_or_default() {
        let folder = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        if folder.is_some_and(owner::is_leftover) {
            swap_off(&path);
            if let Some(folder) = path.parent() {
                let _ = fs::remove_dir_all(folder);
            }
        }
    }
}

fn turn() -> Result<Flock<File>> {
    let lock = File::options().create(true).append(true).open(TURN).context("open the swap lock")?;
    Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error).context("take the swap lock")
}

fn swap_off(path: &Path) {
    if let Err(error) = run(Command::new("/sbin/swapoff").arg(path)) {
        eprintln!("bench: {error:#}");
    }
}

fn devices() -> Result<Vec<PathBuf>> {
    let swaps = fs::read_to_string("/proc/swaps")?;
    Ok(swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(PathBuf::from).collect())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
