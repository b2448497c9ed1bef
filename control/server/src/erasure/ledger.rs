//! The requests for erasure once more, beside the database: a backup that is restored has forgotten those that came
//! after it, and with them whom to erase again.
//!
//! A line of JSON each, on the disk before the request is committed. Opaque ids only.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use dormouse_api::registry::erasure::Erasure;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub request: String,
    pub subject: String,
    pub tenant: Option<String>,
    pub requested_at_ms: u64,
}

impl From<&Erasure> for Entry {
    fn from(made: &Erasure) -> Self {
        Self {
            request: made.id.clone(),
            subject: made.subject.clone(),
            tenant: made.tenant.clone(),
            requested_at_ms: made.requested_at_ms,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Ledger(PathBuf);

#[derive(Debug, thiserror::Error)]
#[error("cannot read or write the ledger of erasures {path}: {source}")]
pub struct LedgerError {
    path: PathBuf,
    source: io::Error,
}

impl Ledger {
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    fn failed(&self) -> impl FnOnce(io::Error) -> LedgerError {
        |source| LedgerError { path: self.0.clone(), source }
    }

    /// On the disk when it returns. Blocks.
    pub fn note(&self, entry: &Entry) -> Result<(), LedgerError> {
        let write = || -> io::Result<()> {
            if let Some(folder) = self.0.parent() {
                fs::create_dir_all(folder)?;
            }
            let mut file =
                OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.0)?;
            // A line that a power cut tore must not take this one with it.
            let mut line = if ends_whole(&mut file)? { Vec::new() } else { vec![b'\n'] };
            line.extend(serde_json::to_vec(entry)?);
            line.push(b'\n');
            // One write: lines of two instances don't mix (O_APPEND, open(2)).
            file.write_all(&line)?;
            file.sync_all()
        };
        write().map_err(self.failed())
    }

    /// Every request, oldest first. Blocks.
    pub fn read(&self) -> Result<Vec<Entry>, LedgerError> {
        let text = match fs::read_to_string(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.failed()(error)),
        };
        // A torn line was never answered.
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }
}

fn ends_whole(file: &mut fs::File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_read_also_beside_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::at(&folder.path().join("new/erasures.jsonl"));
        assert_eq!(ledger.read().unwrap(), []);
        let entry = |subject: &str| Entry {
            request: "01".to_owned(),
            subject: subject.to_owned(),
            tenant: None,
            requested_at_ms: 1,
        };
        ledger.note(&entry("a")).unwrap();
        let mut file = OpenOptions::new().append(true).open(&ledger.0).unwrap();
        file.write_all(b"{\"request\":\"02\",\"sub").unwrap();
        ledger.note(&entry("b")).unwrap();
        assert_eq!(ledger.read().unwrap(), [entry("a"), entry("b")]);
    }
}
