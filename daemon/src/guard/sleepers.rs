//! Who sleeps, as the undo log has it.

use std::path::Path;

use crate::undo::{Change, Outcome, Owner, UndoError, logs};

/// A server that a pending change stops or slows.
#[derive(Clone, Debug)]
pub struct Sleeper {
    pub name: String,
    /// Its index in the door's arrays.
    pub slot: Option<u32>,
    /// What wakes it, in the order of waking.
    changes: Vec<Change>,
}

/// The servers that sleep now, and the logs that could not be read.
pub fn sleepers(run_dir: &Path) -> Result<(Vec<Sleeper>, Vec<UndoError>), UndoError> {
    let mut found = Vec::new();
    let mut errors = Vec::new();
    for log in logs(run_dir)? {
        let Owner::Server(name) = log.owner() else { continue };
        let pending = match log.contents() {
            Ok(contents) => contents.pending,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        let slot = pending.iter().rev().find_map(|entry| entry.slot);
        let changes: Vec<Change> =
            pending.into_iter().rev().map(|entry| entry.change).filter(Change::is_sleep).collect();
        if !changes.is_empty() {
            found.push(Sleeper { name: name.clone(), slot, changes });
        }
    }
    Ok((found, errors))
}

impl Sleeper {
    /// Lets it run again, and tells the operator. Idempotent, and silent where nothing was to do.
    pub fn wake(&self) {
        for change in &self.changes {
            match change.put_back() {
                Ok(Outcome::Restored) => tracing::info!(server = self.name, %change, "put back"),
                Ok(outcome @ (Outcome::Foreign { .. } | Outcome::Replaced)) => {
                    tracing::debug!(server = self.name, %change, "{outcome}");
                }
                Ok(_) => {}
                Err(error) => tracing::error!(
                    server = self.name,
                    error = &error as &dyn std::error::Error,
                    "cannot wake; trying again; by hand: dormouse off"
                ),
            }
        }
    }
}
