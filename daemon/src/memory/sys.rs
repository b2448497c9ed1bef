//! The system calls that no crate wraps: all `unsafe` of the memory work.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::ranges::Span;

/// The kernel's `UIO_MAXIOV`: one more is EINVAL.
pub const MAX_PIECES: usize = 1024;

/// pidfd_open(2), since Linux 5.3. The descriptor is close-on-exec.
pub fn pidfd_open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes two integers and touches no memory of ours.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the call succeeded, so `fd` is a fresh descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The idle I/O class for the calling thread (ioprio_set(2)): its requests come after everybody else's, where the disk's
/// scheduler knows classes (bfq; mq-deadline since Linux 5.14).
pub fn idle_io() -> Result<(), Errno> {
    const WHO_PROCESS: i32 = 1;
    const CLASS_IDLE: i32 = 3 << 13;
    // SAFETY: three integers; 0 is the calling thread.
    Errno::result(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, CLASS_IDLE) }).map(drop)
}

/// The calling thread, and those that it starts, come before everything that is merely busy. Without CAP_SYS_NICE a wake
/// is as slow as the node is loaded.
pub fn go_first() {
    const FIRST: libc::c_int = -20;
    // SAFETY: three integers; 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, FIRST) };
}

/// The calling thread comes after all others at the CPU (setpriority(2): threads have nice values of their own).
pub fn go_last() {
    const LAST: libc::c_int = 19;
    // SAFETY: three integers; 0 is the calling thread. Going last needs no right, so there is no failure to tell of.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, LAST) };
}

/// process_madvise(2), since Linux 5.10: the bytes of the leading pieces that were done. `pieces` longer than
/// [`MAX_PIECES`] are cut there.
pub fn process_madvise(pidfd: BorrowedFd<'_>, pieces: &[Span], advice: i32) -> Result<u64, Errno> {
    let iovecs: Vec<libc::iovec> = pieces
        .iter()
        .take(MAX_PIECES)
        .map(|s| libc::iovec { iov_base: s.start as *mut libc::c_void, iov_len: s.bytes() as usize })
        .collect();
    // SAFETY: `iovecs` outlives the call and its length is given; the kernel only reads it, and the addresses
    // inside belong to the other process. The advices of `advise::Advice` lose no data there, and on our own
    // process neither (PAGEOUT, COLD and WILLNEED only move pages).
    let done = unsafe {
        libc::syscall(libc::SYS_process_madvise, pidfd.as_raw_fd(), iovecs.as_ptr(), iovecs.len(), advice, 0)
    };
    Errno::result(done).map(|bytes| bytes as u64)
}

/// `struct pm_scan_arg` of linux/fs.h (Linux 6.7).
#[repr(C)]
#[derive(Default)]
struct PmScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region` of linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct PageRegion {
    pub start: u64,
    pub end: u64,
    categories: u64,
}

/// Pages that carry all of `with` and none of `without` (`PAGE_IS_*` bits).
#[derive(Clone, Copy)]
pub struct Categories {
    pub with: u64,
    pub without: u64,
}

mod ioctl {
    nix::ioctl_readwrite!(pagemap_scan, b'f', 16, super::PmScanArg);
}

/// PAGEMAP_SCAN on an open /proc/PID/pagemap: fills `found`, returns how many entries and the address where
/// the walk stopped. ENOTTY before Linux 6.7.
pub fn pagemap_scan(
    pagemap: BorrowedFd<'_>,
    span: Span,
    pages: Categories,
    found: &mut [PageRegion],
) -> Result<(usize, u64), Errno> {
    let mut arg = PmScanArg {
        size: size_of::<PmScanArg>() as u64,
        start: span.start,
        end: span.end,
        vec: found.as_mut_ptr() as u64,
        vec_len: found.len() as u64,
        category_inverted: pages.without,
        category_mask: pages.with | pages.without,
        return_mask: pages.with,
        ..PmScanArg::default()
    };
    // SAFETY: `arg` has the layout and the size that it says; `vec` and `vec_len` describe `found`, which is
    // borrowed mutably for the whole call and whose elements are plain integers, valid with any bits.
    let count = unsafe { ioctl::pagemap_scan(pagemap.as_raw_fd(), &raw mut arg) }?;
    Ok((count as usize, arg.walk_end))
}
