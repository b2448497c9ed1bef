//! Taking the socket's place in the file system.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Who may connect: the owner and the group of the daemon, which runs as root.
const PERMISSIONS: u32 = 0o660;

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("another daemon answers on {path}; stop it first (`systemctl stop dormoused`)")]
    Taken { path: PathBuf },
    #[error("{path} is not a socket; remove it, or name another `socket` in the configuration")]
    NotASocket { path: PathBuf },
    #[error("cannot listen on {path}: {what}")]
    Io { path: PathBuf, what: &'static str, source: io::Error },
}

/// The name of the socket; removed when dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
}

impl Drop for Socket {
    fn drop(&mut self) {
        // A successor may have taken the name already, or /run is gone: nothing left to do here.
        let _ = fs::remove_file(&self.path);
    }
}

/// Listens on `path` with mode 0660. A socket that nobody answers on is replaced; a living one is not.
///
/// Must be called within a tokio runtime.
pub fn listen(path: &Path) -> Result<(UnixListener, Socket), ListenError> {
    let failed = |what| move |source| ListenError::Io { path: path.to_owned(), what, source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed("its folder cannot be made"))?;
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("what is there cannot be looked at")(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ListenError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => return Err(ListenError::Taken { path: path.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(failed("the old socket cannot be tried")(error)),
        },
    }
    // Bound under another name first: the socket never stands at `path` with wider permissions, and the
    // rename replaces a dead one in one step.
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    let _ = fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh).map_err(failed("bind failed"))?;
    let fresh = Socket { path: fresh };
    fs::set_permissions(&fresh.path, Permissions::from_mode(PERMISSIONS))
        .map_err(failed("its permissions cannot be set"))?;
    fs::rename(&fresh.path, path).map_err(failed("it cannot be moved to its place"))?;
    Ok((listener, Socket { path: path.to_owned() }))
}
