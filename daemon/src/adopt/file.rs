//! Files that are whole or not there, also over a power cut: written beside, synced, then given their name.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// A new file; `AlreadyExists` if the name is taken.
pub fn create(file: &Path, text: &str) -> io::Result<()> {
    fs::create_dir_all(directory(file))?;
    let new = beside(file, text)?;
    // link(2) refuses a name that is taken; rename(2) would replace it.
    let linked = fs::hard_link(&new, file);
    let removed = fs::remove_file(&new);
    linked.and(removed)?;
    File::open(directory(file))?.sync_all()
}

/// Replaces a file's text; its owner's permissions stay.
pub fn replace(file: &Path, text: &str) -> io::Result<()> {
    // A link to the file stays one.
    let file = fs::canonicalize(file)?;
    let permissions = fs::metadata(&file)?.permissions();
    let new = beside(&file, text)?;
    let replaced = fs::set_permissions(&new, permissions).and_then(|()| fs::rename(&new, &file));
    if replaced.is_err() {
        let _ = fs::remove_file(&new);
    }
    replaced?;
    File::open(directory(&file))?.sync_all()
}

/// The text in a file that nobody reads: the daemon reads names that end in `.toml`.
fn beside(file: &Path, text: &str) -> io::Result<PathBuf> {
    let new = PathBuf::from(format!("{}.new", file.display()));
    let written = File::create(&new).and_then(|mut out| {
        out.write_all(text.as_bytes())?;
        out.sync_all()
    });
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written.map(|()| new)
}

fn directory(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new("/"))
}
