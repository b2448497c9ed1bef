//! The few bpf(2) calls that make what a daemon would have pinned.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

const MAP_CREATE: libc::c_long = 0;
const PROG_LOAD: libc::c_long = 5;
const OBJ_PIN: libc::c_long = 6;
const LINK_CREATE: libc::c_long = 28;
const ARRAY: u32 = 2;
const MMAPABLE: u32 = 1 << 10;
const SCHED_CLS: u32 = 3;
const TCX_INGRESS: u32 = 46;

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log: [u32; 2],
    log_buffer: u64,
}

#[repr(C)]
struct ObjPin {
    pathname: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    tcx: [u64; 2],
}

fn bpf<T>(command: libc::c_long, attr: &T) -> libc::c_long {
    // SAFETY: the kernel reads `size_of::<T>()` initialised bytes; the pointers in them are the callers'
    // locals, which live through the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    assert!(result >= 0, "bpf({command}): {}", io::Error::last_os_error());
    result
}

fn descriptor(raw: libc::c_long) -> OwnedFd {
    // SAFETY: only called with what bpf(2) has just returned as a new descriptor.
    unsafe { OwnedFd::from_raw_fd(raw as i32) }
}

pub fn array(value_size: usize, max_entries: u32) -> OwnedFd {
    let value_size = value_size as u32;
    let attr = MapCreate { map_type: ARRAY, key_size: 4, value_size, max_entries, map_flags: MMAPABLE };
    descriptor(bpf(MAP_CREATE, &attr))
}

/// A classifier that returns TCX_NEXT.
pub fn classifier() -> OwnedFd {
    let instructions: [u64; 2] = [0xffff_ffff_0000_00b7, 0x95];
    let license = c"GPL";
    descriptor(bpf(
        PROG_LOAD,
        &ProgLoad {
            prog_type: SCHED_CLS,
            instruction_count: 2,
            instructions: instructions.as_ptr() as u64,
            license: license.as_ptr() as u64,
            log: [0; 2],
            log_buffer: 0,
        },
    ))
}

pub fn tcx_link(program: &OwnedFd, ifindex: u32) -> OwnedFd {
    descriptor(bpf(
        LINK_CREATE,
        &LinkCreate {
            prog_fd: program.as_raw_fd() as u32,
            ifindex,
            attach_type: TCX_INGRESS,
            flags: 0,
            tcx: [0; 2],
        },
    ))
}

pub fn pin(object: &OwnedFd, path: &Path) {
    let name = CString::new(path.as_os_str().as_bytes()).unwrap();
    bpf(OBJ_PIN, &ObjPin { pathname: name.as_ptr() as u64, fd: object.as_raw_fd() as u32, flags: 0 });
}
