//! Working sets in a file that is read on a wake, before the first page comes back: plain numbers, 16 bytes a span.
//!
//! Words of 64 bits, little-endian: the format, the boot's id (two), then each process with its learning wakes and
//! what later ones missed, their groups and the groups' spans, each list after its length.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::Path;

use super::ranges::Span;
use super::working_set::{Groups, History, ProcessKey, WorkingSets};
use super::{Error, Result};

const FORMAT: u64 = u64::from_le_bytes(*b"dmwset 2");

pub(super) fn write(sets: &WorkingSets, path: &Path) -> Result<()> {
    let mut words = vec![FORMAT];
    words.extend(boot_id()?);
    words.push(sets.processes.len() as u64);
    for (process, history) in &sets.processes {
        words.extend([process.pid as u64, process.start_time, process.program]);
        words.push(u64::from(history.since_learning));
        for wakes in [&history.wakes, &history.missed] {
            words.push(wakes.len() as u64);
            for groups in wakes {
                words.push(groups.len() as u64);
                for group in groups {
                    words.push(group.len() as u64);
                    words.extend(group.iter().flat_map(|span| [span.start, span.end]));
                }
            }
        }
    }
    let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
    let next = path.with_extension("next");
    let write = || fs::write(&next, bytes).and_then(|()| fs::rename(&next, path));
    write().map_err(|source| Error::Write { path: path.to_owned(), source })
}

pub(super) fn read(path: &Path) -> Result<WorkingSets> {
    let bytes = match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(WorkingSets::default()),
        other => other.map_err(Error::read(path))?,
    };
    let boot = boot_id()?;
    Ok(Reader(&bytes).sets(boot).unwrap_or_else(|| {
        tracing::info!(path = %path.display(), "working sets of another time: learning anew");
        WorkingSets::default()
    }))
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn word(&mut self) -> Option<u64> {
        let (word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*word))
    }

    /// A length that what is left can hold.
    fn length(&mut self) -> Option<usize> {
        let length = usize::try_from(self.word()?).ok()?;
        (length <= self.0.len() / 8).then_some(length)
    }

    fn sets(mut self, boot: [u64; 2]) -> Option<WorkingSets> {
        if self.word()? != FORMAT || [self.word()?, self.word()?] != boot {
            return None;
        }
        let mut sets = WorkingSets::default();
        for _ in 0..self.length()? {
            let pid = i32::try_from(self.word()?).ok()?;
            let process = ProcessKey { pid, start_time: self.word()?, program: self.word()? };
            let since_learning = u32::try_from(self.word()?).ok()?;
            let (wakes, missed) = (self.wakes()?, self.wakes()?);
            sets.processes.insert(process, History { wakes, missed, since_learning });
        }
        self.0.is_empty().then_some(sets)
    }

    fn wakes(&mut self) -> Option<VecDeque<Groups>> {
        let length = self.length()?;
        (0..length).map(|_| self.groups()).collect()
    }

    fn groups(&mut self) -> Option<Groups> {
        let mut groups = Groups::new();
        for _ in 0..self.length()? {
            let length = self.length()?;
            let mut group = Vec::with_capacity(length);
            for _ in 0..length {
                group.push(Span::new(self.word()?, self.word()?));
            }
            groups.push(group);
        }
        Some(groups)
    }
}

/// The identity of this boot (Documentation/admin-guide/sysctl/kernel.rst, "random"): a UUID.
fn boot_id() -> Result<[u64; 2]> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(path).map_err(Error::read(path))?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    match u128::from_str_radix(&digits, 16) {
        Ok(id) => Ok([(id >> 64) as u64, id as u64]),
        Err(_) => Err(Error::Unexpected { path: path.into(), found: text }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> WorkingSets {
        let key = ProcessKey { pid: 7, start_time: 1, program: 2 };
        let group = |at| vec![Span::new(at, at + 4096), Span::new(at + 8192, at + 65536)];
        let wakes = VecDeque::from([vec![group(0), group(1 << 40)], vec![], vec![group(4096)]]);
        WorkingSets { processes: [(key, History { missed: wakes.clone(), wakes, since_learning: 3 })].into() }
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sets");
        assert_eq!(read(&path).unwrap(), WorkingSets::default(), "no file");
        write(&some(), &path).unwrap();
        assert_eq!(read(&path).unwrap(), some());
    }

    #[test]
    fn a_file_of_another_boot_or_a_broken_one_is_no_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sets");
        write(&some(), &path).unwrap();
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(read(&path).unwrap(), WorkingSets::default(), "{cut} bytes");
        }
        let mut other_boot = whole;
        other_boot[8] ^= 1;
        fs::write(&path, other_boot).unwrap();
        assert_eq!(read(&path).unwrap(), WorkingSets::default());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = Reader(&bytes).sets([0, 0]);
        }
    }
}
