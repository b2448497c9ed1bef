//! Is the world on disk? Asked of the files that the game writes it to.

mod walk;
mod writers;

use std::time::{Duration, SystemTime};

use glob::Pattern;

use super::root::ServerRoot;
use crate::agent::clock::{boot_from_system, boot_now};

/// The newest file that matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Newest {
    /// Written at this time of the boot clock, and closed.
    Written {
        at: Duration,
        name: String,
    },
    /// Still open for writing.
    Open {
        name: String,
    },
    None,
}

/// Looks once; a file dated in the future says nothing. Blocks.
pub fn look(root: &ServerRoot, patterns: &[Pattern], pids: &[i32]) -> Newest {
    let now = SystemTime::now();
    let modified = |sighted: &super::root::Sighted| sighted.metadata.modified().ok().filter(|at| *at <= now);
    let newest = patterns
        .iter()
        .flat_map(|pattern| walk::find(root, pattern))
        .filter_map(|sighted| Some((modified(&sighted)?, sighted)))
        .max_by_key(|(at, _)| *at);
    let Some((at, file)) = newest else { return Newest::None };
    let name = super::shown(&file.path().display().to_string());
    if writers::is_closed(root, &file, pids) {
        Newest::Written { at: boot_from_system(at).min(boot_now()), name }
    } else {
        Newest::Open { name }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::evidence::testing::Process;

    #[test]
    fn the_newest_closed_file_tells_the_time() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let process = Process::shell(directory.path(), "exec 3>>open.db");
        let root = ServerRoot::of(process.id()).unwrap();
        let see = |pattern: &str| look(&root, &[Pattern::new(pattern).unwrap()], &[process.id().pid]);
        let age = |name: &str, seconds| {
            let file = fs::OpenOptions::new().append(true).create(true).open(at(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
        };
        assert_eq!(see("*.wld"), Newest::None);
        age("old.wld", 1000);
        age("new.wld", 500);
        let Newest::Written { at: written, name } = see("*.wld") else { panic!("not seen") };
        assert!(name.ends_with("new.wld"));
        let ago = (boot_now().saturating_sub(written)).as_secs();
        assert!((499..=510).contains(&ago) || written == Duration::ZERO, "{ago}");
        let file = fs::File::create(at("future.wld")).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_hours(1)).unwrap();
        assert!(matches!(see("*.wld"), Newest::Written { name, .. } if name.ends_with("new.wld")));
        assert!(matches!(see("*.db"), Newest::Open { .. }));
    }
}
