//! The undo log: whatever dormouse changes is written down with its old value before it is changed, so that
//! anybody can play it backwards: the daemon, the guard, or `dormouse off` with neither of them alive.
//!
//! One file a server under `<run_dir>/undo/`, one JSON line an event. The folder is on tmpfs: a reboot empties
//! it as it does the cgroups and links that it speaks of. A change that cannot be written down is not made.

mod change;
mod file_value;
mod log;
mod pin;
mod tc;

use std::{io, path::PathBuf};

pub use change::{Change, Direction, Outcome};
#[cfg(fuzzing)]
pub use log::fuzz;
pub use log::{Contents, Entry, Owner, Played, Seq, UndoLog, logs, name_on_disk};
pub use tc::has_clsact;

#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    #[error("cannot {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the undo log {} is held by another process that does not let go of it", path.display())]
    Locked { path: PathBuf },
    #[error("the name {name:?} is too long for an undo log; give the server a shorter one")]
    NameTooLong { name: String },
    #[error("cannot write down the change of {what} as JSON")]
    Encode {
        what: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("cannot remove {what} of interface {interface}")]
    Netlink {
        what: &'static str,
        interface: String,
        #[source]
        source: io::Error,
    },
}

impl UndoError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

#[cfg(test)]
mod tests;
