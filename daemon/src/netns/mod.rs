//! Sockets in a server's network namespace. Entering one takes CAP_SYS_ADMIN, which the daemon, who parses what
//! strangers send, must not have: the program `dormouse-netns` has it, and gives back open sockets.

mod helper;
pub mod protocol;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nix::sys::socket::SockProtocol;

use crate::discover::netlink::{Netlink, NetlinkError};
pub use helper::Helper;

#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    #[error("process {pid} is gone, and its network namespace with it")]
    Gone { pid: i32 },
    #[error("cannot open {path}: the daemon needs CAP_SYS_PTRACE")]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot start the helper {path}: is it installed beside the daemon and executable?")]
    Spawn { path: PathBuf, source: io::Error },
    #[error("the helper {path} does not answer; it is started again for the next request")]
    Lost { path: PathBuf, source: io::Error },
    #[error("the helper {path} can't open sockets in the namespace of process {pid}: {why}")]
    Helper { path: PathBuf, pid: i32, why: String },
    #[error("no sockets in the daemon's own namespace")]
    Own { source: NetlinkError },
}

/// A network namespace, held open: it stays the same one whatever becomes of the process.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    pid: i32,
}

impl Namespace {
    /// The namespace that a process is in.
    pub fn of(pid: i32) -> Result<Self, NetnsError> {
        let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
        match File::open(&path) {
            Ok(file) => Ok(Self { file, pid }),
            Err(source) if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {
                Err(NetnsError::Gone { pid })
            }
            Err(source) => Err(NetnsError::Open { path, source }),
        }
    }

    /// The daemon's own.
    pub fn own() -> Result<Self, NetnsError> {
        Self::of(std::process::id() as i32)
    }

    /// Whether both are one namespace: device and inode name it (namespaces(7)).
    pub fn is(&self, other: &Self) -> Result<bool, NetnsError> {
        Ok(self.name()? == other.name()?)
    }

    fn name(&self) -> Result<(u64, u64), NetnsError> {
        let metadata = self.file.metadata().map_err(|source| NetnsError::Open {
            path: format!("/proc/{}/ns/net", self.pid).into(),
            source,
        })?;
        Ok((metadata.dev(), metadata.ino()))
    }

    pub fn file(&self) -> &File {
        &self.file
    }
}

/// What is asked of a server's namespace, and the namespace itself.
#[derive(Debug)]
pub struct NamespaceSockets {
    /// Lists sockets (`sock_diag(7)`).
    pub diag: Netlink,
    /// Lists links and addresses (`rtnetlink(7)`).
    pub route: Netlink,
    pub namespace: Namespace,
}

impl NamespaceSockets {
    /// In the daemon's own namespace, which needs no helper: host-network servers, and the host ends of veths.
    pub fn own() -> Result<Self, NetnsError> {
        let open = |protocol| Netlink::open(protocol).map_err(|source| NetnsError::Own { source });
        Ok(Self {
            diag: open(SockProtocol::NetlinkSockDiag)?,
            route: open(SockProtocol::NetlinkRoute)?,
            namespace: Namespace::own()?,
        })
    }

    fn received(diag: OwnedFd, route: OwnedFd, namespace: Namespace) -> Self {
        Self { diag: diag.into(), route: route.into(), namespace }
    }
}
