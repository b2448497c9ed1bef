//! Files of a server, looked at from outside and through its own root. The server may have written anything
//! there: links that point out, pipes that never answer, files without end.

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use crate::discover::process::ProcessId;

/// No settings file of a game comes near it.
pub const LARGEST: u64 = 256 * 1024;
/// openat2(2) gives EAGAIN where a rename races with a `..` below RESOLVE_IN_ROOT.
const TRIES: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum RootError {
    #[error("process {pid} is gone")]
    Gone { pid: i32 },
    #[error("cannot open {path}: the daemon needs CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH")]
    Open { path: PathBuf, source: io::Error },
    #[error("the working directory {cwd} of process {pid} can't be found below its root")]
    CwdOutside { pid: i32, cwd: PathBuf },
    #[error("there is no {path}")]
    NotFound { path: PathBuf },
    #[error("cannot open the server's {path}")]
    Refused { path: PathBuf, source: io::Error },
    #[error("the server's {path} is no regular file")]
    NotRegular { path: PathBuf },
    #[error("the server's {path} is larger than {} KiB", LARGEST / 1024)]
    TooLarge { path: PathBuf },
}

/// A process's root directory, held open, and where in it the process works.
#[derive(Debug)]
pub struct ServerRoot {
    root: OwnedFd,
    /// Absolute, as the process sees it.
    cwd: PathBuf,
}

/// A regular file that was found but not yet opened for reading.
#[derive(Debug)]
pub struct Sighted {
    handle: File,
    path: PathBuf,
    pub metadata: Metadata,
}

impl ServerRoot {
    pub fn of(process: ProcessId) -> Result<Self, RootError> {
        let pid = process.pid;
        let links = PathBuf::from(format!("/proc/{pid}"));
        let open = |name: &str| {
            let path = links.join(name);
            let handle =
                OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(&path);
            handle.map_err(|source| RootError::Open { path, source })
        };
        let read_link = |name: &str| {
            let path = links.join(name);
            std::fs::read_link(&path).map_err(|source| RootError::Open { path, source })
        };
        let (root, cwd) = (open("root")?, open("cwd")?);
        let (root_path, cwd_path) = (read_link("root")?, read_link("cwd")?);
        // The number could have become another process's in between.
        if !process.is_alive() {
            return Err(RootError::Gone { pid });
        }
        let below = cwd_path.strip_prefix(&root_path).map(|below| Path::new("/").join(below));
        let outside = || RootError::CwdOutside { pid, cwd: cwd_path.clone() };
        let found = Self { root: root.into(), cwd: below.map_err(|_| outside())? };
        // The links' texts are seen from the daemon's root, which says little in another mount namespace.
        let same = |there: &Metadata, here: &Metadata| (there.dev(), there.ino()) == (here.dev(), here.ino());
        let there = found.open(&found.cwd, OFlag::O_PATH).and_then(|cwd| File::from(cwd).metadata());
        match (there, cwd.metadata()) {
            (Ok(there), Ok(here)) if same(&there, &here) => Ok(found),
            _ => Err(outside()),
        }
    }

    /// The server's working directory, as it sees it.
    pub fn cwd(&self) -> &Path {
        &self.cwd
    }

    /// A regular file, by a path from the working directory or absolute in the root. Nothing but a regular
    /// file is ever opened: opening a pipe waits, opening a device may do something.
    pub fn find(&self, path: &Path) -> Result<Sighted, RootError> {
        let path = self.cwd.join(path);
        let handle = File::from(self.open(&path, OFlag::O_PATH).map_err(|source| refused(&path, source))?);
        let metadata = handle.metadata().map_err(|source| refused(&path, source))?;
        if metadata.is_file() {
            Ok(Sighted { handle, path, metadata })
        } else {
            Err(RootError::NotRegular { path })
        }
    }

    /// The names in a directory, with whether each is itself a directory (a link is none); at most `most`.
    pub fn list(&self, path: &Path, most: usize) -> Result<Vec<(OsString, bool)>, RootError> {
        let path = self.cwd.join(path);
        let handle = self
            .open(&path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NONBLOCK)
            .map_err(|source| refused(&path, source))?;
        let entries = std::fs::read_dir(through(&handle)).map_err(|source| refused(&path, source))?;
        Ok(entries
            .flatten()
            .take(most)
            .map(|entry| (entry.file_name(), entry.file_type().is_ok_and(|kind| kind.is_dir())))
            .collect())
    }

    /// All links are followed as the server would follow them: below its root, whatever they say.
    fn open(&self, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
        for _ in 1..TRIES {
            match openat2(&self.root, path, how) {
                Err(Errno::EAGAIN) => {}
                other => return Ok(other?),
            }
        }
        Ok(openat2(&self.root, path, how)?)
    }
}

impl Sighted {
    /// Where it lies in the server's root.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All of it, at most [`LARGEST`] bytes.
    pub fn read(&self) -> Result<Vec<u8>, RootError> {
        let bytes = self.read_start(LARGEST + 1)?;
        if bytes.len() as u64 > LARGEST {
            Err(RootError::TooLarge { path: self.path.clone() })
        } else {
            Ok(bytes)
        }
    }

    /// Its first bytes.
    pub fn read_start(&self, most: u64) -> Result<Vec<u8>, RootError> {
        let read = || {
            let file =
                OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(through(&self.handle))?;
            let mut bytes = Vec::new();
            file.take(most).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|source| refused(&self.path, source))
    }
}

/// What a descriptor stands for, to be opened anew.
fn through(handle: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", handle.as_raw_fd())
}

fn refused(path: &Path, source: io::Error) -> RootError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => RootError::NotFound { path },
        _ => RootError::Refused { path, source },
    }
}

#[cfg(test)]
mod tests;
