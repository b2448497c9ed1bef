//! Whether a guard runs: it holds a lock on a file, which the kernel lets go with the process.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
};

use super::Paths;

/// The lock of a running guard.
pub(super) struct Presence(#[expect(dead_code, reason = "held, never read")] Option<File>);

fn path(run_dir: &Path) -> PathBuf {
    run_dir.join("guard.lock")
}

impl Presence {
    /// A guard that can't be seen still guards: failing to announce it is only told.
    pub(super) fn announce(run_dir: &Path) -> Self {
        let made = std::fs::create_dir_all(run_dir)
            .and_then(|()| File::options().create(true).append(true).open(path(run_dir)));
        match made {
            Ok(file) => {
                if file.try_lock().is_err() {
                    tracing::warn!("another guard runs already; both will guard");
                }
                Self(Some(file))
            }
            Err(error) => {
                tracing::warn!(%error, "`dormouse status` will call this guard absent");
                Self(None)
            }
        }
    }
}

/// Whether a guard of these paths runs now.
pub fn is_running(paths: &Paths) -> bool {
    File::options()
        .append(true)
        .open(path(&paths.run_dir))
        .is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_is_seen_while_it_lives() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths {
            run_dir: dir.path().to_owned(),
            state_dir: dir.path().to_owned(),
            pin_dir: dir.path().to_owned(),
        };
        assert!(!is_running(&paths));
        let presence = Presence::announce(dir.path());
        assert!(is_running(&paths));
        drop(presence);
        assert!(!is_running(&paths));
    }
}
