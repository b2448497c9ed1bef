//! Where the pages of a process are: in memory or on swap.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use nix::errno::Errno;

use super::ranges::{Span, joined, page_size, total};
use super::sys::{Categories, PageRegion, pagemap_scan};
use super::{Error, Result};

// linux/fs.h, PAGE_IS_*.
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGE_IS_PFNZERO: u64 = 1 << 5;

// Documentation/admin-guide/mm/pagemap.rst: one u64 a page.
const ENTRY_PRESENT: u64 = 1 << 63;
const ENTRY_SWAPPED: u64 = 1 << 62;
const ENTRY_FRAME: u64 = (1 << 55) - 1;
/// Of /proc/kpageflags, same page: one u64 a frame.
const KPF_SWAPCACHE: u64 = 1 << 13;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Mapped: the process reaches it without a fault.
    Present,
    /// Unmapped with a swap slot; its content may still be in the swap cache.
    Swapped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    /// Linux 6.7: 1 ms per GiB, and empty address space costs nothing.
    Scan,
    /// Every kernel: 8 bytes a page of address space.
    Read,
}

impl Method {
    fn of_this_kernel() -> Self {
        static METHOD: OnceLock<Method> = OnceLock::new();
        *METHOD.get_or_init(|| {
            let nothing = Categories { with: PAGE_IS_PRESENT, without: 0 };
            let probe = File::open("/proc/self/pagemap")
                .map(|own| pagemap_scan(own.as_fd(), Span::new(0, 0), nothing, &mut []));
            match probe {
                Ok(Err(Errno::ENOTTY)) | Err(_) => Method::Read,
                Ok(_) => Method::Scan,
            }
        })
    }
}

#[derive(Debug)]
pub struct Pagemap {
    pid: i32,
    file: File,
    method: Method,
}

impl Pagemap {
    /// Needs CAP_SYS_PTRACE for a process of another user.
    pub fn open(pid: i32) -> Result<Self> {
        let file = File::open(format!("/proc/{pid}/pagemap"))
            .map_err(|e| Error::process(pid, "read the page map of", e))?;
        Ok(Self { pid, file, method: Method::of_this_kernel() })
    }

    /// The pages of `within` in that state, sorted and joined. The kernel's shared zero page is no memory of
    /// the process: it is left out where the kernel can tell it (6.7).
    pub fn pages(&self, state: State, within: &[Span]) -> Result<Vec<Span>> {
        let mut found = Vec::new();
        for span in within {
            match self.method {
                Method::Scan => self.scan(state, *span, &mut found),
                Method::Read => self.read(state, *span, &mut found),
            }
            .map_err(|e| Error::process(self.pid, "read the page map of", e))?;
        }
        Ok(joined(found, 0))
    }

    /// About how many bytes of these present pages have their copy on swap still (KPF_SWAPCACHE), told from a thousand of
    /// them. 0 where frame numbers are hidden (without CAP_SYS_ADMIN).
    pub fn in_swap_cache(&self, present: &[Span]) -> std::io::Result<u64> {
        const SAMPLE: u64 = 1000;
        let flags = File::open("/proc/kpageflags")?;
        let word = |file: &File, number: u64| {
            let mut word = [0; 8];
            file.read_exact_at(&mut word, number * 8).map(|()| u64::from_ne_bytes(word))
        };
        let page = page_size();
        let pages = total(present) / page;
        let (mut looked, mut cached, mut skip) = (0, 0, 0);
        let stride = (pages / SAMPLE).max(1);
        for span in present {
            let mut at = span.start + skip * page;
            while at < span.end {
                let entry = word(&self.file, at / page)?;
                let frame = entry & ENTRY_FRAME;
                if entry & ENTRY_PRESENT != 0 && frame != 0 {
                    looked += 1;
                    cached += u64::from(word(&flags, frame)? & KPF_SWAPCACHE != 0);
                }
                at += stride * page;
            }
            skip = (at - span.end) / page;
        }
        Ok((total(present) * cached).checked_div(looked).unwrap_or(0))
    }

    fn scan(&self, state: State, span: Span, found: &mut Vec<Span>) -> std::io::Result<()> {
        let pages = match state {
            State::Present => Categories { with: PAGE_IS_PRESENT, without: PAGE_IS_PFNZERO },
            State::Swapped => Categories { with: PAGE_IS_SWAPPED, without: 0 },
        };
        let mut buffer = [PageRegion::default(); 512];
        let mut rest = span;
        while rest.bytes() > 0 {
            let (count, stopped_at) = pagemap_scan(self.file.as_fd(), rest, pages, &mut buffer)?;
            found.extend(buffer[..count].iter().map(|r| Span::new(r.start, r.end)));
            if stopped_at <= rest.start {
                break;
            }
            rest.start = stopped_at;
        }
        Ok(())
    }

    fn read(&self, state: State, span: Span, found: &mut Vec<Span>) -> std::io::Result<()> {
        let wanted = match state {
            State::Present => ENTRY_PRESENT,
            State::Swapped => ENTRY_SWAPPED,
        };
        let page = page_size();
        let mut buffer = vec![0u8; 64 << 10];
        let mut at = span.start;
        while at < span.end {
            let want = buffer.len().min(((span.end - at) / page * 8) as usize);
            let got = self.file.read_at(&mut buffer[..want], at / page * 8)?;
            for entry in buffer[..got].chunks_exact(8) {
                let mut word = [0; 8];
                word.copy_from_slice(entry);
                if u64::from_ne_bytes(word) & wanted != 0 {
                    found.push(Span::new(at, at + page));
                }
                at += page;
            }
            if got < 8 {
                break; // the process ended, or the address space does
            }
        }
        *found = joined(std::mem::take(found), 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::regions::Regions;

    #[test]
    fn both_methods_see_the_same_pages() {
        let data = vec![7u8; 4 << 20];
        let start = (data.as_ptr() as u64).next_multiple_of(page_size());
        let span = Span::new(start, start + (3 << 20));
        let pid = nix::unistd::getpid().as_raw();
        let mut pagemap = Pagemap::open(pid).unwrap();
        for method in [Method::Scan, Method::Read] {
            pagemap.method = method;
            assert_eq!(pagemap.pages(State::Present, &[span]).unwrap(), [span], "{method:?}");
            assert_eq!(pagemap.pages(State::Swapped, &[span]).unwrap(), [], "{method:?}");
        }
        drop(data);
    }

    #[test]
    fn a_whole_process_can_be_read() {
        let pid = nix::unistd::getpid().as_raw();
        let regions = Regions::of_process(pid).unwrap().spans();
        let present = Pagemap::open(pid).unwrap().pages(State::Present, &regions).unwrap();
        assert!(!present.is_empty());
    }
}
