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
        let pages: Vec<u64> = spans.iter().flat_map(|s| (s.start..s.end).step_by(page as usize)).collect();
        let mut sink = [0u8; 2 * MAX_PIECES];
        let mut touched = Touched::default();
        let mut rest = pages.as_slice();
        while !rest.is_empty() {
            let pieces = one_byte_a_page(rest);
            let wanted = pieces.iter().map(|piece| piece.len).sum();
            let local = &mut [IoSliceMut::new(&mut sink[..wanted])];
            let read = match process_vm_readv(Pid::from_raw(self.pid), local, &pieces) {
                Ok(read) => read,
                Err(Errno::EFAULT) => 0,
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(Error::process(self.pid, "read memory of", e.into())),
            };
            touched.pages += read as u64;
            // A short count stops before the page that isn't there.
            let missed = usize::from(read < wanted);
            touched.missed += missed as u64;
            rest = &rest[read + missed..];
        }
        Ok(touched)
    }
}

/// What one call reads of the first of these pages. Two neighbours are one piece of two bytes across their border: the
/// kernel's work for a piece (lock, walk, copy) is as long as that for a page.
fn one_byte_a_page(pages: &[u64]) -> Vec<RemoteIoVec> {
    let page = page_size();
    let mut pieces = Vec::with_capacity(MAX_PIECES.min(pages.len()));
    let mut rest = pages;
    while let [first, others @ ..] = rest
        && pieces.len() < MAX_PIECES
    {
        let pair = others.first() == Some(&(first + page));
        let base = if pair { first + page - 1 } else { *first } as usize;
        pieces.push(RemoteIoVec { base, len: 1 + usize::from(pair) });
        rest = &others[usize::from(pair)..];
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_read_once() {
        let page = page_size();
        let pages = [0, 1, 2, 5, 7, 8, 9, 10].map(|number| number * page);
        let read: Vec<u64> = one_byte_a_page(&pages)
            .iter()
            .flat_map(|piece| piece.base as u64..(piece.base + piece.len) as u64)
            .map(|byte| byte / page * page)
            .collect();
        assert_eq!(read, pages);
        let many: Vec<u64> = (0..5000).map(|number| number * page).collect();
        assert_eq!(one_byte_a_page(&many).len(), MAX_PIECES);
    }

    #[test]
    fn a_page_that_is_not_there_is_missed_alone() {
        let page = page_size();
        let memory = vec![1u8; 8 * page as usize];
        let start = (memory.as_ptr() as u64).next_multiple_of(page);
        let own = Target::open(nix::unistd::getpid().as_raw()).unwrap();
        // The first page of the address space is never mapped, nor the one after it.
        let spans = [Span::new(0, 2 * page), Span::new(start, start + 3 * page)];
        assert_eq!(own.touch(&spans).unwrap(), Touched { pages: 3, missed: 2 });
    }
}
