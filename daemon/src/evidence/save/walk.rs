//! Files that match a pattern, looked for below the server's own root, in bounded time.

use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use crate::evidence::root::{ServerRoot, Sighted};

/// Names looked at for one pattern. A world of loose region files has some thousands.
const MOST_NAMES: usize = 20_000;
/// Levels below a `**`.
const MOST_LEVELS: usize = 16;
/// As in a shell: a hidden file has to be meant.
const LIKE_A_SHELL: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// Every regular file that matches; relative patterns start at the working directory. Blocks.
pub fn find(root: &ServerRoot, pattern: &Pattern) -> Vec<Sighted> {
    let pattern = Path::new(pattern.as_str());
    let start = if pattern.is_absolute() { PathBuf::from("/") } else { root.cwd().to_owned() };
    let steps: Vec<&str> =
        pattern.as_os_str().to_str().unwrap_or_default().split('/').filter(|step| !step.is_empty()).collect();
    let mut walk = Walk { root, names: MOST_NAMES, found: Vec::new() };
    walk.descend(&start, &steps, MOST_LEVELS);
    walk.found
}

struct Walk<'a> {
    root: &'a ServerRoot,
    /// Names that may still be looked at.
    names: usize,
    found: Vec<Sighted>,
}

impl Walk<'_> {
    fn descend(&mut self, here: &Path, steps: &[&str], levels: usize) {
        let Some((step, rest)) = steps.split_first() else {
            self.found.extend(self.root.find(here));
            return;
        };
        if *step == "**" {
            self.descend(here, rest, levels);
            if levels > 0 {
                // Links are not followed here: they may go in circles.
                for (name, directory) in self.list(here) {
                    if directory {
                        self.descend(&here.join(name), steps, levels - 1);
                    }
                }
            }
        } else if step.contains(['*', '?', '[']) {
            let Ok(step) = Pattern::new(step) else { return };
            for (name, _) in self.list(here) {
                if name.to_str().is_some_and(|name| step.matches_with(name, LIKE_A_SHELL)) {
                    self.descend(&here.join(name), rest, levels);
                }
            }
        } else {
            self.descend(&here.join(step), rest, levels);
        }
    }

    fn list(&mut self, directory: &Path) -> Vec<(std::ffi::OsString, bool)> {
        let names = self.root.list(directory, self.names).unwrap_or_default();
        // The look itself counts too: a tree of empty directories ends as well.
        self.names = self.names.saturating_sub(names.len() + 1);
        names
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::evidence::testing::Process;

    fn names(directory: &Path, pattern: &str) -> Vec<String> {
        let process = Process::in_directory(directory);
        let root = ServerRoot::of(process.id()).unwrap();
        let mut names: Vec<String> = find(&root, &Pattern::new(pattern).unwrap())
            .iter()
            .map(|sighted| {
                sighted.path().strip_prefix(root.cwd()).unwrap_or(sighted.path()).display().to_string()
            })
            .collect();
        names.sort();
        names
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &str| directory.path().join(path);
        fs::create_dir_all(at("worlds/one/deep/er")).unwrap();
        fs::create_dir_all(at("worlds/two/map.db")).unwrap();
        for file in ["worlds/one/map.db", "worlds/one/deep/er/map.db", "worlds/.hidden.db", "a.db", "b.wld"] {
            fs::write(at(file), "").unwrap();
        }
        symlink(".", at("worlds/circle")).unwrap();
        nix::unistd::mkfifo(&at("pipe.db"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(names(directory.path(), "*.db"), ["a.db"]);
        assert_eq!(names(directory.path(), "worlds/*/map.db"), ["worlds/one/map.db"]);
        assert_eq!(names(directory.path(), "[Ww]orlds/one/map.db"), ["worlds/one/map.db"]);
        assert_eq!(names(directory.path(), "**/map.db"), ["worlds/one/deep/er/map.db", "worlds/one/map.db"]);
        assert_eq!(names(directory.path(), "worlds/.*.db"), ["worlds/.hidden.db"]);
        assert_eq!(names(directory.path(), "worlds/*.db"), [""; 0]);
        assert_eq!(names(directory.path(), "none/*"), [""; 0]);
        let absolute = format!("{}/?.wld", directory.path().display());
        assert_eq!(names(Path::new("/tmp"), &absolute).len(), 1);
    }

    #[test]
    fn a_walk_ends() {
        let directory = tempfile::tempdir().unwrap();
        let mut deep = directory.path().to_owned();
        for _ in 0..40 {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("map.db"), "").unwrap();
        assert_eq!(names(directory.path(), "**/map.db"), [""; 0]);
        assert_eq!(names(directory.path(), "**/**/**/**/**/none"), [""; 0], "no more than the names allowed");
    }
}
