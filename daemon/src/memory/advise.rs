//! Moving pages of another process: advice by process_madvise(2), and reading one byte a page by
//! process_vm_readv(2), which maps a page as if the process had touched it. Both work on a frozen process.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use super::ranges::{Span, intersection, page_size};
use super::sys::{self, MAX_PIECES};
use super::{Error, Result, regions};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Reclaim first, but only if memory is needed.
    Cold,
    /// Write to swap now. On a disk the pages stay in the swap cache: a sweep has to follow.
    PageOut,
    /// Read from swap into the swap cache, without waiting. Since Linux 5.15.
    WillNeed,
}

impl Advice {
    const fn number(self) -> i32 {
        match self {
            Self::Cold => libc::MADV_COLD,
            Self::PageOut => libc::MADV_PAGEOUT,
            Self::WillNeed => libc::MADV_WILLNEED,
        }
    }
}

/// What became of an advice, in bytes of address space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advised {
    pub taken: u64,
    /// Mappings that went away meanwhile or don't take this advice.
    pub refused: u64,
}

/// What became of touching, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    pub pages: u64,
    pub missed: u64,
}

/// A process whose memory is worked on. Holds it by pidfd, so that advice never reaches a successor with the
/// same pid; touching goes by pid (no call takes a pidfd), which at worst reads a byte of a stranger and
/// drops it.
#[derive(Debug)]
pub struct Target {
    pid: i32,
    pidfd: OwnedFd,
}

impl Target {
    pub fn open(pid: i32) -> Result<Self> {
        let pidfd = sys::pidfd_open(pid).map_err(|e| Error::process(pid, "open", e.into()))?;
        Ok(Self { pid, pidfd })
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Gives the advice for all of `spans`. A mapping that refuses (EINVAL: locked; ENOMEM: a hole) is tried
    /// again by its own borders, then counted as refused: it never ends the work on the others.
    pub fn advise(&self, advice: Advice, spans: &[Span]) -> Result<Advised> {
        let mut advised = Advised::default();
        let mut borders: Option<Vec<Span>> = None;
        let mut rest = spans;
        while !rest.is_empty() {
            let batch = &rest[..rest.len().min(MAX_PIECES)];
            let done = self.call(advice, batch)?;
            // The kernel counts whole pieces only: the one after them is the one that failed.
            let mut counted = 0;
            let whole = batch.iter().take_while(|piece| {
                counted += piece.bytes();
                counted <= done
            });
            let whole = whole.count();
            advised.taken += batch[..whole].iter().map(|p| p.bytes()).sum::<u64>();
            let Some(failed) = batch.get(whole) else {
                rest = &rest[whole..];
                continue;
            };
            if borders.is_none() {
                borders = Some(regions::borders(self.pid)?);
            }
            let parts = intersection(&[*failed], borders.as_deref().unwrap_or_default());
            let mut taken = 0;
            for part in parts {
                taken += self.call(advice, &[part])?;
            }
            advised.taken += taken;
            advised.refused += failed.bytes() - taken;
            rest = &rest[whole + 1..];
        }
        Ok(advised)
    }

    /// Bytes of the leading pieces that took the advice; 0 if the first one refused it.
    fn call(&self, advice: Advice, pieces: &[Span]) -> Result<u64> {
        loop {
            return match sys::process_madvise(self.pidfd.as_fd(), pieces, advice.number()) {
                Ok(bytes) => Ok(bytes),
                Err(Errno::EINTR) => continue,
                Err(Errno::EINVAL | Errno::ENOMEM | Errno::EAGAIN | Errno::EBUSY) => Ok(0),
                Err(e) => Err(Error::process(self.pid, "page memory of", e.into())),
            };
        }
    }

    /// Reads one byte of every page: waits until it is there, and maps it.
    pub fn touch(&self, spans: &[Span]) -> Result<Touched> {
        let page = page_size();
        let addresses = spans.iter().flat_map(|s| (s.start..s.end).step_by(page as usize));
        let pages: Vec<RemoteIoVec> = addresses.map(|at| RemoteIoVec { base: at as usize, len: 1 }).collect();
        let mut sink = [0u8; MAX_PIECES];
        let mut touched = Touched::default();
        let mut rest = pages.as_slice();
        while !rest.is_empty() {
            let batch = &rest[..rest.len().min(MAX_PIECES)];
            let local = &mut [IoSliceMut::new(&mut sink[..batch.len()])];
            let read = match process_vm_readv(Pid::from_raw(self.pid), local, batch) {
                Ok(read) => read,
                Err(Errno::EFAULT) => 0,
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(Error::process(self.pid, "read memory of", e.into())),
            };
            touched.pages += read as u64;
            // A short count stops before the page that isn't there.
            let missed = usize::from(read < batch.len());
            touched.missed += missed as u64;
            rest = &rest[read + missed..];
        }
        Ok(touched)
    }
}
