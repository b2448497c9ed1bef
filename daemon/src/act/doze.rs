//! Stopping or slowing a server with its undo entry written first, and taken back when nothing came of it.

use std::{os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use super::{
    freezer::{FreezeError, Freezer},
    throttle::{self, ThrottleError},
};
use crate::undo::{Change, Seq, UndoError, UndoLog};

#[derive(Debug, thiserror::Error)]
pub enum DozeError {
    #[error(transparent)]
    Undo(#[from] UndoError),
    #[error(transparent)]
    Freeze(#[from] FreezeError),
    #[error(transparent)]
    Throttle(#[from] ThrottleError),
}

/// Freezes a server and returns when every task has stopped. On an error it runs and nothing is left to
/// undo, except when even that could not be done: then the log still has it.
///
/// Ends by [`Freezer::thaw`] and [`UndoLog::undone`], or by [`UndoLog::wake`].
pub fn freeze(freezer: &mut Freezer, log: &UndoLog, timeout: Duration) -> Result<Seq, DozeError> {
    // Before anything is written down: playing back must not undo somebody else's freeze.
    if freezer.state()?.set {
        return Err(FreezeError::FrozenBySomebodyElse { cgroup: freezer.cgroup().to_path_buf() }.into());
    }
    let change = Change::CgroupValue {
        cgroup: freezer.cgroup().to_path_buf(),
        inode: freezer.inode(),
        file: "cgroup.freeze".to_owned(),
        old: "0".to_owned(),
        new: "1".to_owned(),
    };
    let seq = log.before(change.clone())?;
    if let Err(error) = freezer.freeze(timeout) {
        // Once more, since a freeze that could not be taken back must stay in the log.
        if !matches!(error, FreezeError::FrozenBySomebodyElse { .. }) {
            change.put_back()?;
        }
        log.undone(&[seq])?;
        return Err(error.into());
    }
    Ok(seq)
}

/// Leaves a server `percent` of one core. On an error it has what it had, as with [`freeze`].
///
/// Ends by [`UndoLog::wake`].
pub fn throttle(cgroup: &Path, log: &UndoLog, percent: u32) -> Result<Seq, DozeError> {
    let old = throttle::read(cgroup)?;
    let new = old.throttled(percent);
    let inode = std::fs::metadata(cgroup).map_err(UndoError::io("look at", cgroup))?.ino();
    let change = Change::CgroupValue {
        cgroup: cgroup.to_path_buf(),
        inode,
        file: "cpu.max".to_owned(),
        old: old.to_string(),
        new: new.to_string(),
    };
    let seq = log.before(change.clone())?;
    if let Err(error) = throttle::write(cgroup, new) {
        change.put_back()?;
        log.undone(&[seq])?;
        return Err(error.into());
    }
    Ok(seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throttled_server_is_woken_and_keeps_its_other_changes() {
        let dir = tempfile::tempdir().unwrap();
        let cgroup = dir.path().join("cgroup");
        std::fs::create_dir(&cgroup).unwrap();
        std::fs::write(cgroup.join("cpu.max"), "max 100000\n").unwrap();
        std::fs::write(cgroup.join("memory.swap.max"), "0\n").unwrap();
        let log = UndoLog::of_server(dir.path(), "one", 0).unwrap();
        log.before(Change::cgroup_value(&cgroup, "memory.swap.max", "max").unwrap()).unwrap();
        throttle(&cgroup, &log, 5).unwrap();
        assert_eq!(std::fs::read_to_string(cgroup.join("cpu.max")).unwrap(), "5000 100000");
        let played = log.wake().unwrap();
        assert_eq!(played.changes.len(), 1);
        assert_eq!(std::fs::read_to_string(cgroup.join("cpu.max")).unwrap(), "max 100000");
        assert_eq!(log.contents().unwrap().pending.len(), 1);
        assert_eq!(log.put_back_limits().unwrap().changes.len(), 1);
        assert_eq!(std::fs::read_to_string(cgroup.join("memory.swap.max")).unwrap().trim(), "0");
        assert!(log.contents().unwrap().pending.is_empty());
    }

    #[test]
    fn what_fails_leaves_nothing_to_undo() {
        let dir = tempfile::tempdir().unwrap();
        let log = UndoLog::of_server(dir.path(), "one", 0).unwrap();
        let error = throttle(dir.path(), &log, 5).unwrap_err();
        assert!(matches!(error, DozeError::Throttle(ThrottleError::NoCpuController { .. })), "{error}");
        assert!(log.contents().unwrap().pending.is_empty());
    }
}
