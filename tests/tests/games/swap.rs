//! Swap for as long as a test lasts. Swap belongs to the machine: suites that need it take turns.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Command,
};

use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

/// The same lock as in the daemon's own tests of memory.
const LOCK: &str = "/tmp/dormouse-swap.lock";
const FOLDER: &str = "/var/tmp";
const PREFIX: &str = "dormouse-games-";

pub struct Swap {
    file: PathBuf,
    _dir: TempDir,
    _turn: Flock<File>,
}

impl Swap {
    /// A swap file of this size, used before any other swap.
    pub fn of_gib(gib: u32) -> Self {
        let lock = OpenOptions::new().create(true).append(true).open(LOCK).unwrap();
        let turn = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error).unwrap();
        sweep();
        let dir = TempDir::with_prefix_in(PREFIX, FOLDER).unwrap();
        let swap = Self { file: dir.path().join("swap"), _dir: dir, _turn: turn };
        let name = swap.file.to_str().unwrap();
        run("fallocate", &["-l", &format!("{gib}GiB"), name]);
        fs::set_permissions(&swap.file, Permissions::from_mode(0o600)).unwrap();
        run("mkswap", &[name]);
        run("swapon", &["--priority", "100", name]);
        swap
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        // Fails when it was never on.
        let _ = Command::new("swapoff").arg(&self.file).status();
    }
}

/// What a killed run left: whoever holds the lock has the only one that is in use.
fn sweep() {
    for entry in fs::read_dir(FOLDER).unwrap().flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)) {
            let _ = Command::new("swapoff").arg(entry.path().join("swap")).output();
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}
