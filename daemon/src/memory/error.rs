use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a failure of the machine: the server ended while its memory was being worked on.
    #[error("process {pid} is gone")]
    Gone { pid: i32 },
    #[error(
        "may not {action} process {pid}: give dormoused CAP_SYS_PTRACE and CAP_SYS_NICE, and a profile \
         (AppArmor, seccomp) that allows ptrace, process_madvise and process_vm_readv"
    )]
    Denied { pid: i32, action: &'static str, source: io::Error },
    #[error("cannot {action} process {pid}")]
    Process { pid: i32, action: &'static str, source: io::Error },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} holds something unexpected: {found:?}", path.display())]
    Unexpected { path: PathBuf, found: String },
    #[error(
        "this machine has no swap, so there is nowhere to put a sleeper's memory: add a swap partition or \
         file of twice the memory that may sleep (mkswap, swapon), or set `floor = \"dozing\"`"
    )]
    NoSwap,
    #[error(
        "{} is throttled and goes on ticking, and this kernel can't page out only what is cold of it (memory.reclaim \
         with swappiness: a v2 memory controller and Linux 6.12): it stays as it is", cgroup.display()
    )]
    NoColdReclaim { cgroup: PathBuf },
    #[error(
        "{} forbids swap (its memory.swap.max is 0): raise it there; dormouse lifts the limit of a \
         server's own cgroup only, never of the ones above it", cgroup.display()
    )]
    SwapForbidden { cgroup: PathBuf },
}

impl Error {
    pub(super) fn read(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Read { path: path.as_ref().to_owned(), source }
    }

    /// A failed call on a process, told apart by what the operator can do about it.
    pub(super) fn process(pid: i32, action: &'static str, source: io::Error) -> Self {
        match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ESRCH | Errno::ENOENT) => Self::Gone { pid },
            Some(Errno::EPERM | Errno::EACCES) => Self::Denied { pid, action, source },
            _ => Self::Process { pid, action, source },
        }
    }
}
