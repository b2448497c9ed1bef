//! `enable` and `disable` outlive a restart: the mode in the server's own file is changed, and nothing else
//! of it. Its comments and its order are its owner's.

use std::io;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::file;
use crate::config::{ConfigError, ServerFile};
use crate::limits::Mode;

#[derive(Debug, thiserror::Error)]
pub enum ModeError {
    #[error("cannot read {}", file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("{}: the mode is left as it is, since the file has an error: put that right first", file.display())]
    Broken { file: PathBuf, source: Box<ConfigError> },
    #[error("{}: the mode's line can't be changed by itself: set mode = \"{mode}\" by hand", file.display())]
    Entangled { file: PathBuf, mode: &'static str },
    #[error("cannot write {}", file.display())]
    Write { file: PathBuf, source: io::Error },
}

/// Sets `mode` in a server's file. A mode that is there already changes nothing.
pub fn set_mode(file: &Path, mode: Mode) -> Result<(), ModeError> {
    let path = || file.to_owned();
    let text = std::fs::read_to_string(file).map_err(|source| ModeError::Read { file: path(), source })?;
    let before = ServerFile::parse(file, &text)
        .map_err(|source| ModeError::Broken { file: path(), source: source.into() })?;
    if before.mode == mode {
        return Ok(());
    }
    let changed = with_mode(&text, mode);
    // All else must read as before.
    let expected = ServerFile { mode, ..before };
    let Some(changed) =
        changed.filter(|text| ServerFile::parse(file, text).is_ok_and(|read| read == expected))
    else {
        return Err(ModeError::Entangled { file: path(), mode: word(mode) });
    };
    file::replace(file, &changed).map_err(|source| ModeError::Write { file: path(), source })
}

/// The text with another mode: its value replaced, or a line of its own after the profile's.
fn with_mode(text: &str, mode: Mode) -> Option<String> {
    let document = DeTable::parse(text).ok()?;
    let span = |key: &str| document.get_ref().get(key).map(toml::Spanned::span);
    let value = format!("\"{}\"", word(mode));
    if let Some(span) = span("mode") {
        return Some([text.get(..span.start)?, &value, text.get(span.end..)?].concat());
    }
    let end = span("profile")?.end;
    let line = text.get(end..)?.find('\n').map(|length| end + length + 1);
    let (before, after) = text.split_at(line.unwrap_or(text.len()));
    let newline = if line.is_some() { "" } else { "\n" };
    Some(format!("{before}{newline}mode = {value}\n{after}"))
}

fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Observe => "observe",
        Mode::Doze => "doze",
        Mode::Full => "full",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const FILE: &str = "\
# My server.
select = 'unit:mc' # the unit
profile = \"minecraft-java\" # a proxy stands before it
# Not yet.
mode = 'observe'   # later: full
ports = [\"tcp/25565\"]

[limits]
# mode = \"full\" is not here
doze_after = \"5m\"
";

    #[test]
    fn the_mode_is_changed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("mc.toml");
        std::fs::write(&file, FILE).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let link = directory.path().join("link.toml");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        set_mode(&link, Mode::Full).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), FILE.replace("'observe'", "\"full\""));
        assert!(link.is_symlink());
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        set_mode(&file, Mode::Observe).unwrap();
        set_mode(&file, Mode::Observe).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), FILE.replace("'observe'", "\"observe\""));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_file_without_a_mode_gets_a_line() {
        let with = with_mode("profile = \"a\" # b\nselect = \"unit:a\"\n[limits]\n", Mode::Doze).unwrap();
        assert_eq!(with, "profile = \"a\" # b\nmode = \"doze\"\nselect = \"unit:a\"\n[limits]\n");
        assert_eq!(with_mode("profile = 'a'", Mode::Full).unwrap(), "profile = 'a'\nmode = \"full\"\n");
    }

    #[test]
    fn a_broken_file_is_left_alone_and_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("mc.toml");
        std::fs::write(&file, "select = \"unit:mc\"\nprofle = \"x\"\n").unwrap();
        let error = set_mode(&file, Mode::Full).unwrap_err();
        assert!(
            matches!(error, ModeError::Broken { .. }) && error.to_string().contains("mc.toml"),
            "{error}"
        );
        assert!(matches!(set_mode(&directory.path().join("no"), Mode::Full), Err(ModeError::Read { .. })));
    }

    proptest::proptest! {
        #[test]
        fn every_file_that_reads_keeps_all_but_its_mode(
            comment in "[ -~]{0,20}",
            mode in proptest::option::of("(observe|doze|full)"),
            end in proptest::bool::ANY,
        ) {
            let mode = mode.map(|mode| format!("mode='{mode}'#{comment}\n")).unwrap_or_default();
            let text = format!("#{comment}\n{mode}select = \"unit:a\"\nprofile = \"luanti\" #{comment}");
            let text = if end { text + "\n[limits]\ndoze_after = \"5m\"\n" } else { text };
            let file = Path::new("/x/a.toml");
            let before = ServerFile::parse(file, &text).unwrap();
            let after = ServerFile::parse(file, &with_mode(&text, Mode::Full).unwrap()).unwrap();
            proptest::prop_assert_eq!(after, ServerFile { mode: Mode::Full, ..before });
        }
    }
}
