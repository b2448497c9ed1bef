//! The kinds of changes, and how each is put back.

use std::{
    fmt,
    num::NonZeroU32,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{UndoError, file_value, pin, tc};

/// One thing that dormouse is about to change, with what is needed to put it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    /// The value of a cgroup's file. `old` and `new` as the kernel gives them back, without the line end.
    CgroupValue {
        cgroup: PathBuf,
        /// Of the cgroup's directory: a new cgroup of the same name is not touched.
        inode: u64,
        file: String,
        old: String,
        new: String,
    },
    /// A file below `/proc/sys`.
    Sysctl { path: PathBuf, old: String, new: String },
    /// A link, program or map pinned in a bpffs. A link is detached as well, whoever holds it open.
    Pin { path: PathBuf },
    /// A BPF filter on a clsact qdisc; ours by its priority and handle.
    Filter {
        interface: String,
        ifindex: u32,
        direction: Direction,
        priority: u16,
        /// Never 0: the kernel would take that as "all filters of this priority".
        handle: NonZeroU32,
    },
    /// A clsact qdisc that dormouse added; it stays if others have put filters on it since.
    Clsact { interface: String, ifindex: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    Ingress,
    Egress,
}

/// How putting back ended; each is a success, and the entry is done with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Restored,
    /// It had its old value already.
    AlreadyBack,
    /// The file, cgroup or interface is gone, and the change with it.
    Vanished,
    /// Another cgroup or interface has the name now; it was not touched.
    Replaced,
    /// Somebody else has changed it since; it was left alone.
    Foreign {
        found: String,
    },
    /// Others use it by now; it was left alone.
    InUse,
}

// === impl Change ===

/// What stops or slows a server's processes.
const FREEZE: &str = "cgroup.freeze";
const CPU_MAX: &str = "cpu.max";
/// What lets a server's memory go to swap.
const SWAP_MAX: &str = "memory.swap.max";

impl Change {
    /// Reads the present value of a cgroup's file as the old one. `new` must be spelt as the kernel gives it
    /// back (`max 100000`, not `max`), else putting back takes it for somebody else's.
    pub fn cgroup_value(cgroup: &Path, file: &str, new: impl Into<String>) -> Result<Self, UndoError> {
        let path = cgroup.join(file);
        let inode = std::fs::metadata(cgroup).map_err(UndoError::io("look at", cgroup))?.ino();
        let old = std::fs::read_to_string(&path).map_err(UndoError::io("read", path))?;
        Ok(Self::CgroupValue {
            cgroup: cgroup.to_path_buf(),
            inode,
            file: file.to_owned(),
            old: old.trim_end().to_owned(),
            new: new.into(),
        })
    }

    /// Reads the present value of a file below `/proc/sys` as the old one.
    pub fn sysctl(path: &Path, new: impl Into<String>) -> Result<Self, UndoError> {
        let old = std::fs::read_to_string(path).map_err(UndoError::io("read", path))?;
        Ok(Self::Sysctl { path: path.to_path_buf(), old: old.trim_end().to_owned(), new: new.into() })
    }

    /// Whether putting it back is part of waking the server.
    pub fn is_sleep(&self) -> bool {
        matches!(self, Self::CgroupValue { file, .. } if file == FREEZE || file == CPU_MAX)
    }

    /// Whether it was made for a page-out only.
    pub fn is_page_out(&self) -> bool {
        matches!(self, Self::CgroupValue { file, .. } if file == SWAP_MAX)
    }

    /// Puts the old state back. Idempotent.
    pub fn put_back(&self) -> Result<Outcome, UndoError> {
        match self {
            // Whoever froze it meanwhile: a server that dormouse once froze is never left frozen.
            Self::CgroupValue { cgroup, inode, file, .. } if file == FREEZE => {
                file_value::put_back_in(cgroup, *inode, file, "0", None)
            }
            Self::CgroupValue { cgroup, inode, file, old, new } => {
                file_value::put_back_in(cgroup, *inode, file, old, Some(new))
            }
            Self::Sysctl { path, old, new } => file_value::put_back(path, old, new),
            Self::Pin { path } => pin::remove(path),
            Self::Filter { interface, ifindex, direction, priority, handle } => {
                tc::remove_filter(interface, *ifindex, *direction, *priority, *handle)
            }
            Self::Clsact { interface, ifindex } => tc::remove_clsact(interface, *ifindex),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CgroupValue { cgroup, file, .. } => write!(f, "{}/{file}", cgroup.display()),
            Self::Sysctl { path, .. } => write!(f, "{}", path.display()),
            Self::Pin { path } => write!(f, "pin {}", path.display()),
            Self::Filter { interface, direction, priority, handle, .. } => {
                write!(f, "{direction} filter {priority}:{handle} of {interface}")
            }
            Self::Clsact { interface, .. } => write!(f, "clsact qdisc of {interface}"),
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restored => f.write_str("restored"),
            Self::AlreadyBack => f.write_str("was back already"),
            Self::Vanished => f.write_str("is gone"),
            Self::Replaced => f.write_str("is another one of the same name, not touched"),
            Self::Foreign { found } => write!(f, "was changed to {found:?} by somebody else, left alone"),
            Self::InUse => f.write_str("is used by others, left alone"),
        }
    }
}
