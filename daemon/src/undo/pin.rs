//! Removing what is pinned in a bpffs.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use super::{Outcome, UndoError};

/// `enum bpf_cmd` of include/uapi/linux/bpf.h.
const BPF_OBJ_GET: libc::c_long = 7;
/// Since Linux 5.9.
const BPF_LINK_DETACH: libc::c_long = 34;

/// The head of `union bpf_attr` for the two commands.
#[repr(C)]
#[derive(Default)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[repr(C)]
struct LinkDetach {
    link_fd: u32,
}

/// Unpins, and detaches a link first: a daemon that hangs would hold it open otherwise.
pub(super) fn remove(path: &Path) -> Result<Outcome, UndoError> {
    match get(path) {
        // Fails for what is no link and for kinds that cannot be detached; the unpin is then all there is.
        Ok(object) => drop(detach(&object)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Outcome::Vanished),
        Err(_) => {}
    }
    match std::fs::remove_file(path) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(Outcome::Vanished),
        removed => removed.map(|()| Outcome::Restored).map_err(UndoError::io("unpin", path)),
    }
}

fn get(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attr = ObjGet { pathname: path.as_ptr() as u64, ..ObjGet::default() };
    // SAFETY: the kernel reads `size_of::<ObjGet>()` bytes of `attr`, which lives through the call and is
    // fully initialised without padding; `pathname` points to a NUL-terminated string that does too.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, &raw const attr, size_of::<ObjGet>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so `fd` is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn detach(link: &OwnedFd) -> io::Result<()> {
    let attr = LinkDetach { link_fd: link.as_raw_fd() as u32 };
    // SAFETY: as above; the call reads `attr` only, and the descriptor is open.
    match unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_DETACH, &raw const attr, size_of::<LinkDetach>()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
