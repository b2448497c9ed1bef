//! System calls that are asked whether they are there, with arguments that do nothing.

use std::fs::File;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use dormouse_api::preflight::Check;
use nix::errno::Errno;
use procfs::Current as _;

use super::{fail, ok, warn};

/// `struct pm_scan_arg` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
pub struct PmScanArg {
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

nix::ioctl_readwrite!(pagemap_scan, b'f', 16, PmScanArg);

pub fn checks() -> [Check; 3] {
    [page_out(), scan(), pressure()]
}

/// What ends a page-out early when the machine gets short of memory (Documentation/accounting/psi.rst).
fn pressure() -> Check {
    let name = "memory pressure";
    match procfs::MemoryPressure::current() {
        Ok(_) => ok(name, "a page-out stops when the machine stalls on memory"),
        Err(error) => warn(
            name,
            format!("can't be read: {error}; only the limits of swap end a page-out early"),
            "a kernel with CONFIG_PSI=y, and no psi=0 on its command line",
        ),
    }
}

/// Whether `MEMBARRIER_CMD_GLOBAL` is there (membarrier(2)).
pub fn membarrier_global() -> bool {
    const QUERY: libc::c_int = 0;
    const GLOBAL: i64 = 1;
    // SAFETY: no pointers.
    let commands = unsafe { libc::syscall(libc::SYS_membarrier, QUERY, 0, 0) };
    commands > 0 && commands & GLOBAL != 0
}

fn page_out() -> Check {
    let name = "process_madvise";
    match process_madvise(libc::MADV_PAGEOUT).and_then(|()| process_madvise(libc::MADV_WILLNEED)) {
        Ok(()) => ok(name, "the kernel takes page-out and will-need"),
        Err(Errno::EPERM) => {
            fail(name, "refused", "give the daemon CAP_SYS_NICE and CAP_SYS_PTRACE, else nothing goes deep")
        }
        Err(Errno::EINVAL) => warn(
            name,
            "takes no MADV_WILLNEED: memory is brought back by reading it, at half the speed",
            "Linux 5.15 or later",
        ),
        Err(error) => fail(
            name,
            format!("not there: {error}"),
            "a kernel with CONFIG_ADVISE_SYSCALLS=y, else nothing goes deep",
        ),
    }
}

/// The advice for one page of this process that nobody uses.
fn process_madvise(advice: i32) -> nix::Result<()> {
    const PAGE: usize = 4096;
    // SAFETY: no pointers; the descriptor that is given back is nobody else's.
    let own = unsafe {
        let number = Errno::result(libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0))?;
        OwnedFd::from_raw_fd(number as i32)
    };
    let mut memory = vec![1_u8; 2 * PAGE];
    let start = memory.as_ptr().align_offset(PAGE);
    let page = &mut memory[start..start + PAGE];
    let vector = libc::iovec { iov_base: page.as_mut_ptr().cast(), iov_len: PAGE };
    // SAFETY: the vector has one element, a page that lives to the end of the call; the advices that are
    // asked for (page out, will need) leave its content as it is, and any other number is refused.
    let done = unsafe {
        libc::syscall(libc::SYS_process_madvise, own.as_raw_fd(), &raw const vector, 1_usize, advice, 0_u32)
    };
    Errno::result(done).map(drop)
}

fn scan() -> Check {
    let name = "PAGEMAP_SCAN";
    let asked = File::open("/proc/self/pagemap").map_err(|_| Errno::ENOENT).and_then(|own| {
        let mut nothing = PmScanArg { size: size_of::<PmScanArg>() as u64, ..PmScanArg::default() };
        // SAFETY: the structure is as long as it says and has no vector to be written to.
        unsafe { pagemap_scan(own.as_raw_fd(), &raw mut nothing) }
    });
    match asked {
        Ok(_) => ok(name, "a server's pages are looked up by one call"),
        Err(_) => warn(
            name,
            "not there: a server's pages are looked up one by one",
            "Linux 6.7 or later makes going deep and waking quicker",
        ),
    }
}

#[cfg(test)]
mod tests {
    use dormouse_api::preflight::CheckResult;

    use super::*;

    #[test]
    fn this_kernel_has_them() {
        // Both are older than the oldest kernel that dormouse runs on.
        assert!(membarrier_global());
        assert_eq!(page_out().result, CheckResult::Ok);
        assert_eq!(process_madvise(-1), Err(Errno::EINVAL));
        assert_ne!(scan().result, CheckResult::Fail);
    }
}
