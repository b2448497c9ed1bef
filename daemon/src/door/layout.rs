//! Maps of another layout, which an older or a newer daemon left pinned. Nothing in them can be read: whoever
//! sleeps behind them is woken by the undo log, and then their links and they themselves go.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use dormouse_abi::LAYOUT;

use crate::{
    failpoint,
    guard::off::remove_tree,
    undo::{UndoError, UndoLog, logs},
};

/// Names the layout that this program was built for. A debug build can be told to take its own for another,
/// which makes it the release before or after itself in a test.
pub fn name() -> &'static str {
    #[cfg(debug_assertions)]
    {
        static NAME: std::sync::OnceLock<String> = std::sync::OnceLock::new();
        NAME.get_or_init(|| std::env::var("DORMOUSE_LAYOUT").unwrap_or_else(|_| LAYOUT.to_owned()))
    }
    #[cfg(not(debug_assertions))]
    LAYOUT
}

#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error("what an earlier daemon of another layout pinned can't be read: {path}: {source}")]
    List { path: PathBuf, source: io::Error },
    #[error(
        "what an earlier daemon of another layout changed can't be read: {0}; `dormouse off` puts it back"
    )]
    Undo(#[from] UndoError),
}

/// The folders of other layouts below `pin_dir`.
///
/// # Errors
/// It can't be listed; one that is not there has none.
pub fn others(pin_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(pin_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries?,
    };
    let mut found = vec![];
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() && entry.file_name() != name() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Leaves every other layout: thaws first, so that a death in the middle leaves nobody frozen behind a door
/// that is gone. Call it before anything of our own is there, and with the old daemon ended.
///
/// # Errors
/// [`LayoutError`]; a server that can't be woken is told of and left to the guard and to `off`.
pub fn leave_others(pin_dir: &Path, run_dir: &Path) -> Result<(), LayoutError> {
    let list = |source| LayoutError::List { path: pin_dir.to_owned(), source };
    let others = others(pin_dir).map_err(list)?;
    if others.is_empty() {
        return Ok(());
    }
    tracing::warn!(
        ours = name(),
        theirs = ?others,
        "an earlier daemon had maps of another layout: every sleeper is woken, then they are removed"
    );
    let logs = logs(run_dir)?;
    for log in &logs {
        tell(log, log.wake()?);
    }
    failpoint::at("layout-woken");
    for folder in &others {
        for log in &logs {
            tell(log, log.unpin(folder)?);
        }
        let mut said = vec![];
        match remove_tree(folder, &mut said) {
            Ok(true) => {}
            Ok(false) => tracing::error!(folder = %folder.display(), "{}", String::from_utf8_lossy(&said)),
            Err(error) => tracing::error!(folder = %folder.display(), "{error:#}"),
        }
    }
    failpoint::at("layout-unpinned");
    Ok(())
}

fn tell(log: &UndoLog, played: crate::undo::Played) {
    for (change, outcome) in played.changes {
        match outcome {
            Ok(outcome) => tracing::info!(owner = ?log.owner(), %change, "{outcome}"),
            Err(error) => {
                tracing::error!(owner = ?log.owner(), %change, %error, "could not be put back; `dormouse off` will");
            }
        }
    }
}
