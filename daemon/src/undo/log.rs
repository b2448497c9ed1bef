//! The file of one server: lines appended before a change and after it was put back.
//!
//! Daemon, guard and `off` may hold the same file: appends are made under flock(2), reads need none, and
//! the file goes when nothing in it is left to undo.

use std::{
    collections::BTreeMap,
    fs::{DirBuilder, File, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::{Change, Outcome, UndoError};
use crate::failpoint;

const FOLDER: &str = "undo";
const NODE_FILE: &str = "node.jsonl";
const SERVER_PREFIX: &str = "server-";
const SUFFIX: &str = ".jsonl";
/// The longest name of a file on every Linux file system, in bytes (NAME_MAX).
const NAME_MAX: usize = 255;
/// Locks are held for one read and one append; who holds one for longer was stopped.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Names a change; rises, and is unique on a node until it reboots.
pub type Seq = u64;

/// Whose changes a log holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    Server(String),
    Node,
}

/// The undo log of one owner.
#[derive(Clone, Debug)]
pub struct UndoLog {
    owner: Owner,
    path: PathBuf,
    slot: Option<u32>,
}

/// A change that was written down and not yet put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub seq: Seq,
    /// The server's slot in the door's maps when the change was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    #[serde(flatten)]
    pub change: Change,
}

/// What a log says now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// In the order of the changes.
    pub pending: Vec<Entry>,
    /// Lines that cannot be read: the last one, torn by a crash before its change was made, or damage.
    pub unreadable: usize,
}

/// What playing back did, in the order in which it was done.
#[derive(Debug, Default)]
pub struct Played {
    pub changes: Vec<(Change, Result<Outcome, UndoError>)>,
    pub unreadable: usize,
    /// Why the log still holds what was put back. Playing it once more does no harm.
    pub unmarked: Option<UndoError>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Before(Entry),
    Undone { undone: Seq },
}

/// Every log under a run directory, servers first.
pub fn logs(run_dir: &Path) -> Result<Vec<UndoLog>, UndoError> {
    let folder = run_dir.join(FOLDER);
    let files = match std::fs::read_dir(&folder) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        files => files.map_err(UndoError::io("list", &folder))?,
    };
    let mut logs = Vec::new();
    for file in files {
        let path = file.map_err(UndoError::io("list", &folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let server = name.strip_prefix(SERVER_PREFIX).and_then(|name| name.strip_suffix(SUFFIX));
        let owner = match server.and_then(decode) {
            Some(server) => Owner::Server(server),
            None if name == NODE_FILE => Owner::Node,
            None => continue,
        };
        logs.push(UndoLog { owner, path, slot: None });
    }
    logs.sort_by(|a, b| a.owner.cmp(&b.owner));
    Ok(logs)
}

// === impl UndoLog ===

impl UndoLog {
    /// The log of a server that has this slot in the door's maps.
    pub fn of_server(run_dir: &Path, name: &str, slot: u32) -> Result<Self, UndoError> {
        let file = format!("{SERVER_PREFIX}{}{SUFFIX}", name_on_disk(name));
        if file.len() > NAME_MAX {
            return Err(UndoError::NameTooLong { name: name.to_owned() });
        }
        let path = run_dir.join(FOLDER).join(file);
        Ok(Self { owner: Owner::Server(name.to_owned()), path, slot: Some(slot) })
    }

    /// The log of what belongs to no server: the pins of maps and of links on the node's own interfaces.
    pub fn of_node(run_dir: &Path) -> Self {
        Self { owner: Owner::Node, path: run_dir.join(FOLDER).join(NODE_FILE), slot: None }
    }

    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Writes a change down. Call it before the change is made, and do not make it on an error.
    pub fn before(&self, change: Change) -> Result<Seq, UndoError> {
        let (mut file, contents) = self.lock()?;
        let last = contents.highest;
        // The clock keeps numbers of a file that went from coming back; it starts anew only with the node.
        let clock = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        let seq = (last + 1).max(clock.as_nanos() as u64);
        let line = Line::Before(Entry { seq, slot: self.slot, change });
        self.append(&mut file, &[line])?;
        Ok(seq)
    }

    /// Marks changes as put back; the file goes when no other is left. Unknown numbers are no error.
    pub fn undone(&self, seqs: &[Seq]) -> Result<(), UndoError> {
        if !self.path.exists() {
            return Ok(());
        }
        let (mut file, contents) = self.lock()?;
        let (marked, left): (Vec<Seq>, Vec<Seq>) =
            contents.pending.keys().partition(|seq| seqs.contains(seq));
        if left.is_empty() {
            return std::fs::remove_file(&self.path).map_err(UndoError::io("remove", &self.path));
        }
        let lines: Vec<Line> = marked.into_iter().map(|undone| Line::Undone { undone }).collect();
        self.append(&mut file, &lines)
    }

    /// What is left to undo. A missing file is an empty log.
    pub fn contents(&self) -> Result<Contents, UndoError> {
        match std::fs::read(&self.path) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(Contents::default()),
            bytes => {
                let parsed = Parsed::of(&bytes.map_err(UndoError::io("read", &self.path))?);
                Ok(Contents {
                    pending: parsed.pending.into_values().collect(),
                    unreadable: parsed.unreadable,
                })
            }
        }
    }

    /// Puts everything back, last change first, and marks what was put back. Goes on after a failure, which
    /// stays in the log. Idempotent.
    pub fn play_back(&self) -> Result<Played, UndoError> {
        self.play_back_those(|_| true)
    }

    /// As [`Self::play_back`], but only what stops or slows the server.
    pub fn wake(&self) -> Result<Played, UndoError> {
        self.play_back_those(Change::is_sleep)
    }

    /// As [`Self::play_back`], but only what a page-out needed: the server is awake. What is on swap stays there
    /// until it is touched; it gets no more.
    pub fn put_back_limits(&self) -> Result<Played, UndoError> {
        self.play_back_those(Change::is_page_out)
    }

    /// As [`Self::play_back`], but only pins below a folder.
    pub fn unpin(&self, folder: &Path) -> Result<Played, UndoError> {
        self.play_back_those(|change| matches!(change, Change::Pin { path } if path.starts_with(folder)))
    }

    fn play_back_those(&self, wanted: impl Fn(&Change) -> bool) -> Result<Played, UndoError> {
        let contents = self.contents()?;
        let mut played = Played { unreadable: contents.unreadable, ..Played::default() };
        let mut done = Vec::new();
        for entry in contents.pending.into_iter().rev().filter(|entry| wanted(&entry.change)) {
            let outcome = entry.change.put_back();
            failpoint::at("undo-put-back");
            if outcome.is_ok() {
                done.push(entry.seq);
            }
            played.changes.push((entry.change, outcome));
        }
        played.unmarked = self.undone(&done).err();
        failpoint::at("undo-marked");
        Ok(played)
    }

    /// Opens and locks the file that has the log's name now (it may go between the open and the lock), and
    /// cuts off a torn last line.
    fn lock(&self) -> Result<(File, Parsed), UndoError> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(UndoError::io("create", folder))?;
        let fail = |action| UndoError::io(action, &self.path);
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            let file = File::options()
                .read(true)
                .append(true)
                .create(true)
                .open(&self.path)
                .map_err(fail("open"))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                }
                Err(TryLockError::WouldBlock) => return Err(UndoError::Locked { path: self.path.clone() }),
                Err(TryLockError::Error(source)) => return Err(fail("lock")(source)),
            }
            let inode = file.metadata().map_err(fail("look at"))?.ino();
            if std::fs::metadata(&self.path).is_ok_and(|named| named.ino() == inode) {
                let bytes = std::fs::read(&self.path).map_err(fail("read"))?;
                let parsed = Parsed::of(&bytes);
                if parsed.whole < bytes.len() {
                    file.set_len(parsed.whole as u64).map_err(fail("cut a torn line off"))?;
                }
                return Ok((file, parsed));
            }
        }
    }

    fn append(&self, file: &mut File, lines: &[Line]) -> Result<(), UndoError> {
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, line).map_err(|source| {
                let what = match line {
                    Line::Before(entry) => entry.change.to_string(),
                    Line::Undone { undone } => undone.to_string(),
                };
                UndoError::Encode { what, source }
            })?;
            text.push(b'\n');
        }
        // One write(2), so that a reader without the lock sees at most the last line torn.
        file.write_all(&text).map_err(UndoError::io("append to", &self.path))
    }
}

// === impl Parsed ===

struct Parsed {
    pending: BTreeMap<Seq, Entry>,
    highest: Seq,
    unreadable: usize,
    /// Bytes up to the end of the last whole line.
    whole: usize,
}

impl Parsed {
    fn of(bytes: &[u8]) -> Self {
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut parsed = Self {
            pending: BTreeMap::new(),
            highest: 0,
            unreadable: usize::from(whole < bytes.len()),
            whole,
        };
        for line in bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(Line::Before(entry)) => {
                    parsed.highest = parsed.highest.max(entry.seq);
                    parsed.pending.insert(entry.seq, entry);
                }
                Ok(Line::Undone { undone }) => {
                    parsed.pending.remove(&undone);
                }
                Err(_) => parsed.unreadable += 1,
            }
        }
        parsed
    }
}

/// A server's name as part of a file's: percent-encoding of everything but letters, digits, `.`, `_` and `-`.
pub fn name_on_disk(name: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

fn decode(encoded: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut parts = encoded.split('%');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let (hex, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(hex, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    let parsed = Parsed::of(bytes);
    assert!(parsed.whole <= bytes.len());
    for entry in parsed.pending.values() {
        let line = serde_json::to_vec(&Line::Before(entry.clone())).expect("what was read can be written");
        assert!(matches!(serde_json::from_slice(&line), Ok(Line::Before(again)) if again == *entry));
    }
    if let Ok(text) = str::from_utf8(bytes) {
        let _ = decode(text);
        assert_eq!(decode(&name_on_disk(text)).as_deref(), Some(text));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_name_survives_the_file_name(name in ".*") {
            let encoded = name_on_disk(&name);
            prop_assert!(!encoded.contains('/'));
            prop_assert_eq!(decode(&encoded), Some(name));
        }

        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let parsed = Parsed::of(&bytes);
            prop_assert!(parsed.pending.is_empty());
        }
    }
}
