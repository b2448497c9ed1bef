//! Putting back a value that lives in a file of the kernel's.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use nix::{
    fcntl::{OFlag, openat},
    sys::stat::Mode,
};

use super::{Outcome, UndoError};

/// Puts back a value of the cgroup with this inode. `new` `None` = whatever is found is overwritten.
pub(super) fn put_back_in(
    cgroup: &Path,
    inode: u64,
    file: &str,
    old: &str,
    new: Option<&str>,
) -> Result<Outcome, UndoError> {
    // Everything goes through one descriptor of the directory, so that the cgroup that was looked at is the
    // cgroup that is written.
    let flags = libc::O_DIRECTORY | libc::O_PATH;
    let directory = match File::options().read(true).custom_flags(flags).open(cgroup) {
        Err(source) if is_vanished(&source) => return Ok(Outcome::Vanished),
        opened => opened.map_err(UndoError::io("open", cgroup))?,
    };
    if directory.metadata().map_err(UndoError::io("look at", cgroup))?.ino() != inode {
        return Ok(Outcome::Replaced);
    }
    let opened = openat(&directory, file, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty());
    let opened = opened.map(File::from).map_err(io::Error::from);
    exchange(opened, &cgroup.join(file), old, new)
}

pub(super) fn put_back(path: &Path, old: &str, new: &str) -> Result<Outcome, UndoError> {
    exchange(File::options().read(true).write(true).open(path), path, old, Some(new))
}

fn exchange(
    opened: io::Result<File>,
    path: &Path,
    old: &str,
    new: Option<&str>,
) -> Result<Outcome, UndoError> {
    let result = opened.and_then(|mut file| {
        let mut found = String::new();
        file.read_to_string(&mut found)?;
        let found = found.trim_end();
        if found == old {
            return Ok(Outcome::AlreadyBack);
        }
        if new.is_some_and(|new| new != found) {
            return Ok(Outcome::Foreign { found: found.to_owned() });
        }
        file.rewind()?;
        // The kernel's files take whole values and do not care; a plain file would keep a longer value's tail.
        file.set_len(0)?;
        file.write_all(old.as_bytes())?;
        Ok(Outcome::Restored)
    });
    match result {
        Err(source) if is_vanished(&source) => Ok(Outcome::Vanished),
        result => result.map_err(UndoError::io("put back", path)),
    }
}

/// ENODEV is what an open file of a removed cgroup answers (kernfs).
fn is_vanished(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}
