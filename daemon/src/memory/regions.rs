//! Which parts of a process may be paged out: its private anonymous memory, and nothing else. What is left
//! alone is counted by reason, so that the operator can be told.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use super::ranges::Span;
use super::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Heap,
    Stack,
    /// mmap()ed: the arenas of malloc, the heap of a JVM, thread stacks.
    Mapped,
}

/// Why a mapping is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Skip {
    /// Files keep themselves on disk; the kernel drops them on its own when it needs the memory.
    File,
    /// tmpfs, memfd, SysV and other shared memory: another process may be using it.
    Shared,
    /// Code made at run time (a JIT's): small, and needed first on a wake.
    Executable,
    /// mlock()ed: the kernel refuses.
    Locked,
    HugeTlb,
    /// Device memory, and the kernel's own pages ([vdso], [vvar]).
    Device,
    /// A fault there waits for another thread of the server, which is frozen.
    Userfaultfd,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "of mapped files",
            Self::Shared => "of shared memory (tmpfs, memfd, SysV), which others may use",
            Self::Executable => "of code made at run time",
            Self::Locked => "locked by the server (mlock)",
            Self::HugeTlb => "of reserved huge pages (hugetlbfs), which can't be swapped",
            Self::Device => "of devices and the kernel",
            Self::Userfaultfd => "handled by the server itself (userfaultfd)",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    pub span: Span,
    pub kind: Kind,
}

/// The mappings of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Regions {
    /// In the order of their addresses, each one VMA.
    pub anonymous: Vec<Region>,
    /// Resident bytes of these that the process has touched since its accessed bits were last cleared (`Referenced`
    /// of Documentation/filesystems/proc.rst). A huge page has one such bit: touched in one place, all of it counts.
    pub referenced: u64,
    /// Resident bytes left alone, by reason.
    pub skipped: BTreeMap<Skip, u64>,
}

impl Regions {
    /// Reads /proc/PID/smaps: it walks the page tables (some ms per GiB), so it belongs on the way down, not
    /// on the way up.
    pub fn of_process(pid: i32) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps");
        let file = File::open(&path).map_err(|e| Error::process(pid, "read the memory map of", e))?;
        Self::parse(BufReader::new(file), pid, Path::new(&path))
    }

    pub fn spans(&self) -> Vec<Span> {
        self.anonymous.iter().map(|r| r.span).collect()
    }

    fn parse(smaps: impl BufRead, pid: i32, path: &Path) -> Result<Self> {
        let mut regions = Self::default();
        let mut current: Option<Mapping> = None;
        // Bytes, not UTF-8: a mapped file may be called anything.
        for line in smaps.split(b'\n') {
            let line = line.map_err(|e| Error::process(pid, "read the memory map of", e))?;
            let line = String::from_utf8_lossy(&line);
            if let Some(mapping) = Mapping::from_header(&line) {
                regions.add(current.replace(mapping));
            } else if let Some(mapping) = &mut current {
                mapping.read_field(&line);
            } else {
                return Err(Error::Unexpected { path: path.to_owned(), found: line.into_owned() });
            }
        }
        regions.add(current);
        Ok(regions)
    }

    fn add(&mut self, mapping: Option<Mapping>) {
        let Some(mapping) = mapping else { return };
        match mapping.judge() {
            Ok(kind) => {
                self.anonymous.push(Region { span: mapping.span, kind });
                self.referenced = self.referenced.saturating_add(mapping.referenced);
            }
            Err(skip) if mapping.resident > 0 => {
                let skipped = self.skipped.entry(skip).or_default();
                *skipped = skipped.saturating_add(mapping.resident);
            }
            Err(_) => {}
        }
    }
}

/// The borders of all mappings of a process, whatever they are: cheap (no page-table walk).
pub fn borders(pid: i32) -> Result<Vec<Span>> {
    let path = format!("/proc/{pid}/maps");
    let text = std::fs::read(path).map_err(|e| Error::process(pid, "read the memory map of", e))?;
    Ok(String::from_utf8_lossy(&text).lines().filter_map(Mapping::from_header).map(|m| m.span).collect())
}

/// What may be brought back on a wake: private anonymous mappings, told from the cheap /proc/PID/maps. Flags
/// aren't in there, but a page that was never paged out isn't swapped either.
pub fn anonymous(pid: i32) -> Result<Vec<Span>> {
    let path = format!("/proc/{pid}/maps");
    let text = std::fs::read(path).map_err(|e| Error::process(pid, "read the memory map of", e))?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().filter_map(Mapping::from_header).filter(|m| m.judge().is_ok()).map(|m| m.span).collect())
}

struct Mapping {
    span: Span,
    permissions: String,
    inode: u64,
    name: String,
    resident: u64,
    referenced: u64,
    flags: Vec<String>,
}

impl Mapping {
    /// `START-END PERMS OFFSET MAJ:MIN INODE  NAME` (proc_pid_maps(5)), or nothing if the line is no header.
    fn from_header(line: &str) -> Option<Self> {
        let mut words = line.splitn(6, ' ');
        let (start, end) = words.next()?.split_once('-')?;
        let span = Span::new(u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        let permissions = words.next()?.to_owned();
        let inode = words.nth(2)?.parse().ok()?;
        let name = words.next().unwrap_or_default().trim_start().to_owned();
        Some(Self { span, permissions, inode, name, resident: 0, referenced: 0, flags: Vec::new() })
    }

    /// `Rss:  12 kB`; hugetlb pages are counted apart from Rss.
    fn read_field(&mut self, line: &str) {
        let Some((field, value)) = line.split_once(':') else { return };
        let bytes = || {
            let kib = value.split_whitespace().next().and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
            kib.saturating_mul(1024)
        };
        match field {
            "Rss" | "Private_Hugetlb" | "Shared_Hugetlb" => {
                self.resident = self.resident.saturating_add(bytes());
            }
            "Referenced" => self.referenced = bytes(),
            "VmFlags" => self.flags = value.split_whitespace().map(str::to_owned).collect(),
            _ => {}
        }
    }

    fn judge(&self) -> Result<Kind, Skip> {
        let has = |flag: &str| self.flags.iter().any(|f| f == flag);
        if has("ht") {
            return Err(Skip::HugeTlb);
        }
        if has("pf") || has("io") {
            return Err(Skip::Device);
        }
        if self.permissions.contains('s') {
            let memory = ["/dev/zero", "/memfd:", "/SYSV", "/dev/shm/", "[anon_shmem"];
            let shared = memory.iter().any(|prefix| self.name.starts_with(prefix));
            return Err(if shared { Skip::Shared } else { Skip::File });
        }
        let kind = match self.name.as_str() {
            "[heap]" => Kind::Heap,
            name if name == "[stack]" || name.starts_with("[stack:") => Kind::Stack,
            name if name.is_empty() || name.starts_with("[anon:") => Kind::Mapped,
            name if name.starts_with('[') => return Err(Skip::Device),
            _ => return Err(Skip::File),
        };
        if self.inode != 0 {
            return Err(Skip::File);
        }
        if has("um") || has("uw") || has("ui") {
            return Err(Skip::Userfaultfd);
        }
        if has("lo") {
            return Err(Skip::Locked);
        }
        if self.permissions.contains('x') {
            return Err(Skip::Executable);
        }
        Ok(kind)
    }
}

/// /proc/PID/smaps; a container chooses the names of its mappings.
#[cfg(fuzzing)]
pub fn fuzz(smaps: &[u8]) {
    let _ = Regions::parse(smaps, 1, Path::new("smaps"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smaps(mappings: &[(&str, u64, &str)]) -> Regions {
        let block = |(header, rss, flags): &(&str, u64, &str)| {
            format!("{header}\nSize:  8 kB\nRss:   {rss} kB\nVmFlags: {flags}\n")
        };
        let text = mappings.iter().map(block).collect::<Vec<String>>().concat();
        Regions::parse(text.as_bytes(), 1, Path::new("smaps")).unwrap()
    }

    #[test]
    fn heap_stack_and_anonymous_are_taken() {
        let regions = smaps(&[
            ("55d0c0000000-55d0c0021000 rw-p 00000000 00:00 0                          [heap]", 4, "rd wr"),
            ("7f0000000000-7f0000100000 rw-p 00000000 00:00 0 ", 8, "rd wr mr mw me ac nh"),
            ("7f0000200000-7f0000300000 ---p 00000000 00:00 0 ", 0, "mr mw me nr"),
            ("7f0000400000-7f0000500000 rw-p 00000000 00:00 0 [anon:java heap]", 8, "rd wr"),
            (
                "7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]",
                4,
                "rd wr gd",
            ),
        ]);
        let kinds: Vec<Kind> = regions.anonymous.iter().map(|r| r.kind).collect();
        assert_eq!(kinds, [Kind::Heap, Kind::Mapped, Kind::Mapped, Kind::Mapped, Kind::Stack]);
        assert_eq!(regions.anonymous[1].span, Span::new(0x7f00_0000_0000, 0x7f00_0010_0000));
        assert!(regions.skipped.is_empty());
    }

    #[test]
    fn everything_else_is_left_alone_and_named() {
        let anon = "7f0000000000-7f0000100000 rw-p 00000000 00:00 0 ";
        let cases = [
            ("7f0000000000-7f0000100000 rwxp 00000000 00:00 0 ", "rd wr ex", Skip::Executable),
            (anon, "rd wr lo", Skip::Locked),
            (anon, "rd wr ht", Skip::HugeTlb),
            (anon, "rd wr um", Skip::Userfaultfd),
            (anon, "rd wr uw", Skip::Userfaultfd),
            (anon, "rd wr pf io", Skip::Device),
            ("7ffc00000000-7ffc00001000 r-xp 00000000 00:00 0 [vdso]", "rd ex", Skip::Device),
            ("7f0000000000-7f0000100000 rw-p 00001000 fe:00 77 /usr/lib/libc.so.6", "rd wr", Skip::File),
            (
                "7f0000000000-7f0000100000 rw-s 00000000 00:01 3  /dev/zero (deleted)",
                "rd wr sh",
                Skip::Shared,
            ),
            ("7f0000000000-7f0000100000 rw-s 00000000 00:01 3  /memfd:x (deleted)", "rd wr sh", Skip::Shared),
            ("7f0000000000-7f0000100000 rw-s 00000000 00:01 3  /SYSV", "rd wr sh", Skip::Shared),
            ("7f0000000000-7f0000100000 rw-s 00000000 fe:00 9  /world/db-shm", "rd wr sh", Skip::File),
        ];
        for (header, flags, skip) in cases {
            let regions = smaps(&[(header, 16, flags)]);
            assert!(regions.anonymous.is_empty(), "{header}");
            assert_eq!(regions.skipped, BTreeMap::from([(skip, 16 << 10)]), "{header} {flags}");
        }
    }

    #[test]
    fn what_was_touched_is_counted_of_anonymous_memory_only() {
        let text = "7f0000000000-7f0000100000 rw-p 00000000 00:00 0 \nRss: 12 kB\nReferenced: 8 kB\nVmFlags: rd\n\
                    7f0000200000-7f0000300000 rw-p 00001000 fe:00 77 /lib/x\nReferenced: 64 kB\nVmFlags: rd\n\
                    7f0000400000-7f0000500000 rw-p 00000000 00:00 0 \nReferenced: 4 kB\nVmFlags: rd\n";
        let regions = Regions::parse(text.as_bytes(), 1, Path::new("smaps")).unwrap();
        assert_eq!(regions.referenced, 12 << 10);
    }

    #[test]
    fn a_map_that_starts_with_a_field_is_refused() {
        let parsed = Regions::parse(&b"Rss: 4 kB\n"[..], 1, Path::new("smaps"));
        assert!(matches!(parsed, Err(Error::Unexpected { .. })));
    }

    #[test]
    fn our_own_map_has_a_stack() {
        let pid = nix::unistd::getpid().as_raw();
        let regions = Regions::of_process(pid).unwrap();
        assert!(regions.anonymous.iter().any(|r| r.kind == Kind::Stack));
        assert!(regions.skipped.contains_key(&Skip::File));
        assert!(matches!(Regions::of_process(i32::MAX), Err(Error::Gone { .. })));
    }
}
