//! The daemon's side of `dormouse-netns`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt::ReceiveTimeout};
use nix::sys::time::TimeVal;

use super::protocol::{DONE, FAILED, REASON_MAX, SOCKETS, receive, send};
use super::{Namespace, NamespaceSockets, NetnsError};

/// Opening sockets takes microseconds; a helper that is silent for so long is lost.
const TIMEOUT: TimeVal = TimeVal::new(5, 0);

/// The helper program, running. It is started anew when it was lost.
#[derive(Debug)]
pub struct Helper {
    path: PathBuf,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    socket: OwnedFd,
    child: Child,
}

impl Helper {
    /// Starts the program at `path`.
    pub fn spawn(path: impl Into<PathBuf>) -> Result<Self, NetnsError> {
        let path = path.into();
        let running = Running::start(&path)?;
        Ok(Self { path, running: Mutex::new(Some(running)) })
    }

    /// Sockets in the namespace of a process.
    pub fn sockets(&self, pid: i32) -> Result<NamespaceSockets, NetnsError> {
        let namespace = Namespace::of(pid)?;
        match self.ask(SOCKETS, &namespace)? {
            Answer::Done([diag, route]) => Ok(NamespaceSockets::received(diag, route, namespace)),
            Answer::Failed(why) => Err(NetnsError::Helper { path: self.path.clone(), pid, why }),
        }
    }

    fn ask<const N: usize>(&self, request: u8, namespace: &Namespace) -> Result<Answer<N>, NetnsError> {
        let mut slot = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let running = match slot.take() {
            Some(running) => running,
            None => Running::start(&self.path)?,
        };
        // A helper that failed to answer is dropped here: a late answer must not be taken for the next one's.
        let answer = running
            .ask(request, namespace)
            .map_err(|source| NetnsError::Lost { path: self.path.clone(), source })?;
        *slot = Some(running);
        Ok(answer)
    }
}

enum Answer<const N: usize> {
    Done([OwnedFd; N]),
    Failed(String),
}

impl Running {
    fn start(path: &Path) -> Result<Self, NetnsError> {
        let spawn = |source| NetnsError::Spawn { path: path.to_owned(), source };
        let (socket, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(|errno| spawn(errno.into()))?;
        setsockopt(&socket, ReceiveTimeout, &TIMEOUT).map_err(|errno| spawn(errno.into()))?;
        let child = Command::new(path)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .map_err(spawn)?;
        Ok(Self { socket, child })
    }

    fn ask<const N: usize>(&self, request: u8, namespace: &Namespace) -> io::Result<Answer<N>> {
        send(&self.socket, &[request], &[namespace.file().as_fd()])?;
        let mut text = [0; 1 + REASON_MAX];
        let (length, descriptors) = receive(&self.socket, &mut text)?;
        match (text[..length].split_first(), <[OwnedFd; N]>::try_from(descriptors)) {
            (Some((&DONE, _)), Ok(descriptors)) => Ok(Answer::Done(descriptors)),
            (Some((&FAILED, why)), _) => Ok(Answer::Failed(String::from_utf8_lossy(why).into_owned())),
            (None, _) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has ended")),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it gave an answer of another version")),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It would end by itself when the socket closes; a stuck one must not be waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
