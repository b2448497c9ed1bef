//! Whether the door can be pinned and loaded: it is, under a name of its own, and taken away again.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use dormouse_api::preflight::Check;
use nix::sys::statfs::{FsType, statfs};

use super::{fail, ok};
use crate::door::Door;

pub fn checks(pin_dir: &Path) -> Vec<Check> {
    let mount = "mount -t bpf bpf /sys/fs/bpf, or set pin_dir to a path on a bpffs";
    let trial = match Trial::new(pin_dir) {
        Ok(trial) => trial,
        Err(found) => {
            let object = fail("BPF object", "not tried: there is no bpffs to pin it in", mount);
            return vec![fail("bpffs", found, mount), object];
        }
    };
    let bpffs = ok("bpffs", format!("{} is on a bpffs and can be written", pin_dir.display()));
    let object = match Door::load(&trial.path) {
        Ok(door) => ok("BPF object", format!("loaded and verified, for {:?}", door.hook())),
        Err(error) => fail(
            "BPF object",
            // It says its source itself.
            error.to_string(),
            "Linux 6.1 or later; CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; no lockdown that forbids BPF",
        ),
    };
    vec![bpffs, object]
}

/// A folder in the bpffs that goes away with all that is pinned in it.
struct Trial {
    path: PathBuf,
    /// The deepest folder that was there before.
    stays: PathBuf,
}

impl Trial {
    /// Below the daemon's own folder, so that `dormouse off` finds what a killed preflight left there.
    fn new(pin_dir: &Path) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let stays = pin_dir.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_owned();
        let kind = statfs(&stays).map_err(|error| format!("{}: {error}", stays.display()))?;
        if kind.filesystem_type() != FsType(libc::BPF_FS_MAGIC) {
            return Err(format!("{} is on no bpffs", pin_dir.display()));
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = pin_dir.join(format!("preflight-{}-{count}", std::process::id()));
        let trial = Self { path, stays };
        fs::create_dir_all(&trial.path)
            .map_err(|error| format!("{} can't be made: {error}", trial.path.display()))?;
        Ok(trial)
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
        // A folder that somebody else uses meanwhile is not empty and stays.
        for path in self.path.ancestors().skip(1).take_while(|path| *path != self.stays) {
            let _ = fs::remove_dir(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use dormouse_api::preflight::CheckResult;

    use super::*;

    #[test]
    fn the_object_is_loaded_for_real_and_nothing_stays() {
        let above = PathBuf::from(format!("/sys/fs/bpf/dormouse-test-preflight-{}", std::process::id()));
        let checks = checks(&above.join("pins"));
        assert!(checks.iter().all(|check| check.result == CheckResult::Ok), "{checks:?}");
        assert!(!above.exists());
    }

    #[test]
    fn a_path_that_is_no_bpffs_is_told_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let checks = checks(&directory.path().join("pins"));
        assert!(checks.iter().all(|check| check.result == CheckResult::Fail), "{checks:?}");
        assert!(checks[0].remedy.as_ref().unwrap().contains("mount -t bpf"));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
