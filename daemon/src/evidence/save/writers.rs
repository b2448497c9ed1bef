//! Is the server done with a file? A half-written world is no save.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use crate::evidence::root::{RootError, ServerRoot, Sighted};

/// The first bytes of a database (SQLite, Database File Format, 1.3).
const SQLITE: &[u8] = b"SQLite format 3\0";
/// The first bytes of a rollback journal that is in use (the same, 3.1); one that is left over has zeros.
const HOT_JOURNAL: &[u8] = &[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];

/// Whether nobody is in the middle of writing it. A SQLite database stays open as long as its game runs: there
/// every write is a transaction, and no journal says that none is under way. Blocks.
pub fn is_closed(root: &ServerRoot, file: &Sighted, pids: &[i32]) -> bool {
    if file.read_start(SQLITE.len() as u64).is_ok_and(|start| start == SQLITE) {
        let mut journal = file.path().as_os_str().to_owned();
        journal.push("-journal");
        return match root.find(&PathBuf::from(journal)) {
            Ok(journal) => {
                journal.read_start(HOT_JOURNAL.len() as u64).is_ok_and(|start| start != HOT_JOURNAL)
            }
            Err(RootError::NotFound { .. }) => true,
            Err(_) => false,
        };
    }
    !pids.iter().any(|&pid| writes(pid, file))
}

/// Whether a process has it open for writing; what can't be seen counts as written.
fn writes(pid: i32, file: &Sighted) -> bool {
    let gone = |error: &std::io::Error| {
        error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
    };
    let descriptors = match std::fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(descriptors) => descriptors,
        Err(error) => return !gone(&error),
    };
    descriptors.flatten().any(|descriptor| {
        // stat(2) follows the link to the open file itself, whatever its name is by now.
        let same = std::fs::metadata(descriptor.path())
            .is_ok_and(|open| (open.dev(), open.ino()) == (file.metadata.dev(), file.metadata.ino()));
        if !same {
            return false;
        }
        let info = format!("/proc/{pid}/fdinfo/{}", descriptor.file_name().display());
        match std::fs::read_to_string(info) {
            Ok(info) => flags(&info).is_none_or(|flags| flags & libc::O_ACCMODE != libc::O_RDONLY),
            Err(error) => !gone(&error),
        }
    })
}

/// `flags:` of a descriptor, octal (proc_pid_fdinfo(5)).
fn flags(info: &str) -> Option<i32> {
    info.lines().find_map(|line| i32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::evidence::testing::Process;

    fn closed(process: &Process, name: &str) -> bool {
        let root = ServerRoot::of(process.id()).unwrap();
        let file = root.find(Path::new(name)).unwrap();
        is_closed(&root, &file, &[process.id().pid, i32::MAX])
    }

    #[test]
    fn a_file_open_for_writing_is_not_closed() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["written.db", "read.db"] {
            fs::write(directory.path().join(name), "world").unwrap();
        }
        let process = Process::shell(directory.path(), "exec 3>>written.db 4<read.db");
        assert!(!closed(&process, "written.db"));
        assert!(closed(&process, "read.db"));
        let other = Process::in_directory(directory.path());
        assert!(closed(&other, "written.db"), "not its own");
    }

    #[test]
    fn an_open_database_counts_between_its_transactions() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("map.sqlite"), b"SQLite format 3\0 and pages").unwrap();
        let process = Process::shell(directory.path(), "exec 3<>map.sqlite");
        assert!(closed(&process, "map.sqlite"));
        fs::write(at("map.sqlite-journal"), [HOT_JOURNAL, &[0; 100]].concat()).unwrap();
        assert!(!closed(&process, "map.sqlite"), "in a transaction");
        fs::write(at("map.sqlite-journal"), [0; 100]).unwrap();
        assert!(closed(&process, "map.sqlite"), "journal_mode=PERSIST leaves zeros");
        fs::write(at("map.sqlite-journal"), "").unwrap();
        assert!(closed(&process, "map.sqlite"), "journal_mode=TRUNCATE leaves nothing");
    }

    #[test]
    fn flags_are_octal() {
        assert_eq!(flags("pos:\t0\nflags:\t0100002\nmnt_id:\t29\n"), Some(libc::O_RDWR | 0o100_000));
        assert_eq!(flags("pos:\t0\n"), None);
    }
}
