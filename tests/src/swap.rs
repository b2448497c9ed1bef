//! Swap for machines that have none: deep sleepers must go somewhere.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

use crate::owner;

/// Swap files belong on a disk; /tmp may be none.
const FOLDER: &str = "/var/tmp";
/// Beside a swap file: a setting's file and its old value, in two lines. Whoever comes after a killed run puts it back.
const PUT_BACK: &str = "put-back";

/// Swap is the whole machine's: whoever makes some or measures it takes turns by this lock.
const TURN: &str = "/tmp/dormouse-swap.lock";

/// The machine's swap: what was there, or what is gone with this value.
pub struct Swap {
    device: PathBuf,
    made: Option<Made>,
    _turn: Flock<File>,
}

enum Made {
    File { dir: TempDir },
    Zram(u32),
}

impl Swap {
    /// Takes the turn, and makes a swap file of `mib` MiB if the machine has no swap.
    pub fn ensure(mib: u64) -> Result<Self> {
        Self::with(|path| run(Command::new("fallocate").arg("-l").arg(format!("{mib}M")).arg(path)))
    }

    /// Takes the turn, and makes a swap file of `mib` MiB that is used before any other swap.
    pub fn make(mib: u64) -> Result<Self> {
        Self::file(turn()?, |path| run(Command::new("fallocate").arg("-l").arg(format!("{mib}M")).arg(path)))
    }

    /// The same for measurements: on a disk that doesn't call itself rotational (virtual ones do, and swap read-ahead
    /// then goes by the device's order), and written throughout, so that a read of the file is one of the disk.
    pub fn measurable(mib: u64) -> Result<Self> {
        let mut swap = Self::with(|path| {
            let mut file = File::create(path)?;
            let zeros = vec![0; 1 << 20];
            for _ in 0..mib {
                file.write_all(&zeros)?;
            }
            Ok(file.sync_all()?)
        })?;
        swap.not_rotational()?;
        Ok(swap)
    }

    /// Takes the turn, and makes `mib` MiB of compressed memory (lz4) the only swap; `None` where the machine has swap
    /// of its own, or no zram.
    pub fn zram(mib: u64) -> Result<Option<Self>> {
        let turn = turn()?;
        let number = fs::read_to_string("/sys/class/zram-control/hot_add");
        let (true, Ok(number)) = (devices()?.is_empty(), number) else { return Ok(None) };
        let number = number.trim().parse()?;
        let device = PathBuf::from(format!("/dev/zram{number}"));
        let swap = Self { device, made: Some(Made::Zram(number)), _turn: turn };
        let block = PathBuf::from(format!("/sys/block/zram{number}"));
        let _ = fs::write(block.join("comp_algorithm"), "lz4");
        fs::write(block.join("disksize"), format!("{mib}M"))?;
        run(Command::new("/sbin/mkswap").arg(&swap.device))?;
        run(Command::new("/sbin/swapon").arg(&swap.device))?;
        Ok(Some(swap))
    }

    fn with(make: impl FnOnce(&Path) -> Result<()>) -> Result<Self> {
        let turn = turn()?;
        if let Some(device) = devices()?.into_iter().next() {
            return Ok(Self { device, made: None, _turn: turn });
        }
        Self::file(turn, make)
    }

    fn file(turn: Flock<File>, make: impl FnOnce(&Path) -> Result<()>) -> Result<Self> {
        let dir = TempDir::with_prefix_in(format!("{}-", owner::unique("swap")), FOLDER)?;
        let device = dir.path().join("swap");
        make(&device)?;
        run(Command::new("chmod").arg("600").arg(&device))?;
        run(Command::new("/sbin/mkswap").arg(&device))?;
        run(Command::new("/sbin/swapon").args(["--priority", "100"]).arg(&device))?;
        Ok(Self { device, made: Some(Made::File { dir }), _turn: turn })
    }

    /// The swap file that was made; `None`: the machine has swap of its own.
    pub fn made(&self) -> Option<&Path> {
        self.made.as_ref().map(|_| self.device.as_path())
    }

    /// What is swapped to.
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// The flag counts at the moment of swapon.
    fn not_rotational(&mut self) -> Result<()> {
        use std::os::linux::fs::MetadataExt;
        let disk = fs::metadata(&self.device)?.st_dev();
        let (major, minor) = (nix::sys::stat::major(disk), nix::sys::stat::minor(disk));
        let flag = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}"))?;
        let queues = [flag.join("queue/rotational"), flag.join("../queue/rotational")];
        let flag = queues.into_iter().find(|path| path.exists()).context("the disk's queue")?;
        let old = fs::read_to_string(&flag)?.trim().to_owned();
        if self.made.is_none() || old == "0" {
            return Ok(());
        }
        run(Command::new("/sbin/swapoff").arg(&self.device))?;
        let folder = self.device.parent().context("the swap's folder")?;
        fs::write(folder.join(PUT_BACK), format!("{}\n{old}", flag.display()))?;
        fs::write(&flag, "0")?;
        run(Command::new("/sbin/swapon").arg(&self.device))
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        if self.made.is_some() {
            swap_off(&self.device);
        }
        match &self.made {
            Some(Made::Zram(number)) => {
                let _ = fs::write(format!("/sys/block/zram{number}/reset"), "1");
                let _ = fs::write("/sys/class/zram-control/hot_remove", number.to_string());
            }
            Some(Made::File { dir }) => put_back(dir.path()),
            None => {}
        }
    }
}

fn turn() -> Result<Flock<File>> {
    let lock = File::options().create(true).append(true).open(TURN).context("open the swap lock")?;
    let turn = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
    // What a killed run left is not the machine's own.
    sweep();
    Ok(turn)
}

/// Takes away swap files whose run has ended, and puts back what it had set for them.
pub(crate) fn sweep() {
    let used = devices().unwrap_or_default();
    let folders = fs::read_dir(FOLDER).into_iter().flatten().flatten();
    for folder in folders.filter(|folder| folder.file_name().to_str().is_some_and(owner::is_leftover)) {
        let folder = folder.path();
        used.iter().filter(|device| device.starts_with(&folder)).for_each(|device| swap_off(device));
        put_back(&folder);
        let _ = fs::remove_dir_all(folder);
    }
}

fn put_back(folder: &Path) {
    let Ok(text) = fs::read_to_string(folder.join(PUT_BACK)) else { return };
    if let Some((path, old)) = text.split_once('\n')
        && let Err(error) = fs::write(path, old)
    {
        eprintln!("bench: {path} stays changed: {error}");
    }
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
