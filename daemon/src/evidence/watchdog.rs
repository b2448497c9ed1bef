//! Would the game's own watchdog take a freeze for a hang and kill the server? Its settings tell.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::root::{RootError, ServerRoot};
use super::settings::{Setting, look_up};
use super::{in_full, shown};
use crate::config::{Server, Watchdog as Rule, WatchdogCheck};
use crate::stage::Watchdog;

/// A game may write its settings anew while it starts (Minecraft does); a later change is not what it runs with.
const STARTING: Duration = Duration::from_mins(2);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchdogFound {
    pub state: Watchdog,
    /// With what was found: `off (max-tick-time=-1)`.
    pub text: String,
    /// What its owner has to set for the freeze: `max-tick-time=-1 in server.properties`.
    pub cure: Option<String>,
}

/// Whether it has to be looked at at all; if so, the settings to look at.
pub fn without_looking(server: &Server) -> Result<WatchdogFound, &[WatchdogCheck]> {
    let (state, text) = match (&server.file.assertions.watchdog_off, server.watchdog()) {
        (Some(reason), _) => (Watchdog::AssertedOff, format!("off, says its operator ({reason})")),
        (None, Rule::None) => (Watchdog::Off, format!("none in a game of profile {}", server.profile.name)),
        (None, Rule::Unknown) => {
            (Watchdog::Unknown, format!("unknown for a game of profile {}", server.profile.name))
        }
        (None, Rule::Settings(checks)) => return Err(checks),
    };
    Ok(WatchdogFound { state, text, cure: None })
}

/// Reads the settings; `age` = how long the server's process has been running. Blocks.
pub fn look(root: &ServerRoot, checks: &[WatchdogCheck], age: Duration) -> WatchdogFound {
    let started = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
    let looks: Vec<_> = checks.iter().map(|check| (check, look_at(root, check, started))).collect();
    let pick = |state| looks.iter().filter(move |(_, (found, _))| *found == state);
    let state = match () {
        () if pick(Watchdog::On).next().is_some() => Watchdog::On,
        () if pick(Watchdog::Unknown).next().is_some() => Watchdog::Unknown,
        () => Watchdog::Off,
    };
    let texts: Vec<_> = pick(state).map(|(_, (_, text))| text.as_str()).collect();
    let word = match state {
        Watchdog::On => "on",
        Watchdog::Off | Watchdog::AssertedOff => "off",
        Watchdog::Unknown => "unknown",
    };
    let cures: Vec<_> = looks
        .iter()
        .filter(|(_, (found, _))| *found != Watchdog::Off)
        .map(|(check, _)| format!("{}={} in {}", check.key, check.value, check.file))
        .collect();
    WatchdogFound {
        state,
        text: format!("{word} ({})", texts.join(", ")),
        cure: (!cures.is_empty()).then(|| cures.join(" and ")),
    }
}

fn look_at(root: &ServerRoot, check: &WatchdogCheck, started: SystemTime) -> (Watchdog, String) {
    let WatchdogCheck { file, optional, key, value } = check;
    let read = || {
        let sighted = root.find(Path::new(file))?;
        let modified = sighted.metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        Ok((sighted.read()?, modified))
    };
    let (bytes, modified) = match read() {
        Ok(read) => read,
        Err(RootError::NotFound { .. }) if *optional => return (Watchdog::Off, format!("no {file}")),
        Err(error) => return (Watchdog::Unknown, in_full(&error)),
    };
    match look_up(Path::new(file), &bytes, key) {
        Setting::Value(found) if found == *value && modified > started + STARTING => {
            let text = format!("{key}={value}, but {file} was changed since the server started: restart it");
            (Watchdog::Unknown, text)
        }
        Setting::Value(found) if found == *value => (Watchdog::Off, format!("{key}={value}")),
        Setting::Value(found) => (Watchdog::On, format!("{key}={}", shown(&found))),
        Setting::Missing => (Watchdog::On, format!("no {key} in {file}, so the game's default")),
        Setting::Unclear(why) => (Watchdog::Unknown, format!("{key} in {file} can't be told: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::evidence::testing::Process;

    fn checks() -> Vec<WatchdogCheck> {
        let check = |file: &str, optional, key: &str| WatchdogCheck {
            file: file.to_owned(),
            optional,
            key: key.to_owned(),
            value: "-1".to_owned(),
        };
        vec![
            check("server.properties", false, "max-tick-time"),
            check("spigot.yml", true, "settings.timeout-time"),
        ]
    }

    fn look_in(process: &Process, age: Duration) -> WatchdogFound {
        look(&ServerRoot::of(process.id()).unwrap(), &checks(), age)
    }

    #[test]
    fn off_on_and_unknown_are_told_with_what_was_found() {
        let directory = tempfile::tempdir().unwrap();
        let process = Process::in_directory(directory.path());
        let set = |file: &str, text: &str| fs::write(directory.path().join(file), text).unwrap();

        let found = look_in(&process, Duration::ZERO);
        assert_eq!(found.state, Watchdog::Unknown);
        assert!(
            found.text.contains("there is no /") && found.text.contains("server.properties"),
            "{}",
            found.text
        );

        set("server.properties", "max-tick-time=60000\n");
        let found = look_in(&process, Duration::ZERO);
        assert_eq!(found.text, "on (max-tick-time=60000)");
        assert_eq!(found.cure.as_deref(), Some("max-tick-time=-1 in server.properties"));

        set("server.properties", "view-distance=10\n");
        assert_eq!(
            look_in(&process, Duration::ZERO).text,
            "on (no max-tick-time in server.properties, so the game's default)"
        );

        set("server.properties", "max-tick-time=-1\n");
        let found = look_in(&process, Duration::ZERO);
        assert_eq!(found.text, "off (max-tick-time=-1, no spigot.yml)");
        assert_eq!((found.state, found.cure), (Watchdog::Off, None));

        set("spigot.yml", "settings:\n  timeout-time: 60\n");
        let found = look_in(&process, Duration::ZERO);
        assert_eq!(found.text, "on (settings.timeout-time=60)");
        set("spigot.yml", "settings:\n  timeout-time: -1\n");
        assert_eq!(look_in(&process, Duration::ZERO).state, Watchdog::Off);
    }

    #[test]
    fn what_was_set_after_the_start_is_not_what_runs() {
        let directory = tempfile::tempdir().unwrap();
        let process = Process::in_directory(directory.path());
        fs::write(directory.path().join("server.properties"), "max-tick-time=-1\n").unwrap();
        assert_eq!(look_in(&process, Duration::from_mins(1)).state, Watchdog::Off);
        let found = look_in(&process, Duration::from_hours(1));
        assert_eq!(found.state, Watchdog::Unknown);
        assert!(found.text.contains("restart it"), "{}", found.text);
    }

    #[test]
    fn junk_is_unknown_and_never_reaches_a_terminal() {
        let directory = tempfile::tempdir().unwrap();
        let process = Process::in_directory(directory.path());
        let mut junk = b"max-tick-time=\x1b[31m".to_vec();
        junk.extend([b'x'; 5000]);
        fs::write(directory.path().join("server.properties"), junk).unwrap();
        let found = look_in(&process, Duration::ZERO);
        assert_eq!(found.state, Watchdog::On);
        assert!(!found.text.contains('\x1b') && found.text.len() < 200, "{}", found.text);
        nix::unistd::mkfifo(&directory.path().join("spigot.yml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(directory.path().join("server.properties"), "max-tick-time=-1").unwrap();
        let found = look_in(&process, Duration::ZERO);
        assert_eq!(found.state, Watchdog::Unknown, "a pipe is no absent file");
        assert!(found.text.contains("no regular file"), "{}", found.text);
    }
}
