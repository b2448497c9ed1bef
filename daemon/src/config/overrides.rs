//! `overrides.toml`: what `profile set` wrote. The highest layer, always local, and every entry ends.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::error::{ConfigError, Place, nearest};
use super::layers::{Layer, LayerPatch};
use super::reader::{Section, Source, read_file};
use super::thresholds::{KEYS, Patch};
use super::value::quoted;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    pub server: String,
    pub key: String,
    /// Holds this one key.
    pub patch: Patch,
    /// From then on it is as if it had never been said.
    pub until: SystemTime,
    pub reason: Option<String>,
}

impl Override {
    /// From what an operator typed. `until` must be after `now`.
    pub fn new(
        server: &str,
        key: &str,
        typed: &str,
        until: SystemTime,
        reason: Option<String>,
        now: SystemTime,
    ) -> Result<Self, ConfigError> {
        // The end of year 9999, the last that can be written.
        let last = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
        let patch = Patch::parse_one(key, typed)?;
        if until <= now || until > last {
            return Err(ConfigError::BadValue {
                place: Place { file: "profile set".into(), line: None },
                key: "until".to_owned(),
                found: if until > last { "after the year 9999".to_owned() } else { time(until) },
                expected: "an override must end, and later than now".to_owned(),
            });
        }
        let reason = reason.filter(|reason| !reason.trim().is_empty());
        Ok(Self { server: server.to_owned(), key: key.to_owned(), patch, until, reason })
    }

    pub fn layer(&self, file: &Path) -> LayerPatch {
        let mut from = format!("{} until {}", file.display(), time(self.until));
        if let Some(reason) = &self.reason {
            let _ = write!(from, ", {reason:?}");
        }
        LayerPatch { layer: Layer::Override, from, patch: self.patch.clone() }
    }

    fn is_of(&self, server: &str, key: &str) -> bool {
        self.server == server && self.key == key
    }
}

/// The overrides that hold at `now`; none if there is no file.
pub fn get(file: &Path, now: SystemTime) -> Result<Vec<Override>, ConfigError> {
    let mut overrides = parse(file, &read_file(file)?.unwrap_or_default())?;
    overrides.retain(|entry| entry.until > now);
    Ok(overrides)
}

/// Adds one, in the place of an older one for the same server and key. What has ended is dropped.
pub fn set(file: &Path, entry: Override, now: SystemTime) -> Result<(), ConfigError> {
    let mut overrides = get(file, now)?;
    overrides.retain(|old| !old.is_of(&entry.server, &entry.key));
    overrides.push(entry);
    write(file, &overrides)
}

/// Takes one back; `false` if there was none.
pub fn unset(file: &Path, server: &str, key: &str, now: SystemTime) -> Result<bool, ConfigError> {
    let mut overrides = get(file, now)?;
    let before = overrides.len();
    overrides.retain(|old| !old.is_of(server, key));
    let found = overrides.len() < before;
    if found {
        write(file, &overrides)?;
    }
    Ok(found)
}

pub(super) fn parse(file: &Path, text: &str) -> Result<Vec<Override>, ConfigError> {
    let mut root = Section::parse(Source { file, text })?;
    let entries = root
        .entry("override")
        .map_or(Ok(Vec::new()), |list| list.elements("expected [[override]] tables"))?;
    root.finish()?;
    entries.into_iter().map(|entry| read_override(entry.section()?)).collect()
}

fn read_override(mut section: Section<'_>) -> Result<Override, ConfigError> {
    let server = section.required("server")?;
    let key_entry = section.entry("key");
    let value = section.entry("value");
    let until = section.required("until")?;
    let reason = section.optional("reason")?;
    let Some(key_entry) = key_entry else {
        return Err(section.missing("key", format!("allowed are {}", KEYS.join(", "))));
    };
    let key: String = key_entry.read()?;
    let Some(value) = value else {
        return Err(section.missing("value", format!("expected a value of {key}")));
    };
    let Some(patch) = Patch::read_one(&key, &value)? else {
        let hint = nearest(&key, KEYS.iter().copied())
            .map(|word| format!("did you mean {word}? "))
            .unwrap_or_default();
        return Err(key_entry.bad(format!("{hint}allowed are {}", KEYS.join(", "))));
    };
    section.finish()?;
    Ok(Override { server, key, patch, until, reason })
}

fn render(overrides: &[Override]) -> String {
    let mut text = "# Written by `dormouse profile set`; read `dormouse profile explain`.\n".to_owned();
    for entry in overrides {
        let value = entry.patch.show(&entry.key).unwrap_or_default();
        let _ = write!(
            text,
            "\n[[override]]\nserver = {}\nkey = {}\nvalue = {value}\nuntil = {}\n",
            quoted(&entry.server),
            quoted(&entry.key),
            quoted(&time(entry.until)),
        );
        if let Some(reason) = &entry.reason {
            let _ = writeln!(text, "reason = {}", quoted(reason));
        }
    }
    text
}

/// Whole or not at all, also over a power cut: a second file, synced, takes the first one's name.
fn write(file: &Path, overrides: &[Override]) -> Result<(), ConfigError> {
    let attempt = || -> io::Result<()> {
        let directory = file.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(directory)?;
        let new = PathBuf::from(format!("{}.new", file.display()));
        let mut out = File::create(&new)?;
        out.write_all(render(overrides).as_bytes())?;
        out.sync_all()?;
        std::fs::rename(&new, file)?;
        File::open(directory)?.sync_all()
    };
    attempt().map_err(|source| ConfigError::Write { path: file.to_owned(), source })
}

fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// What was read and written again reads the same.
#[cfg(fuzzing)]
pub fn fuzz(text: &str) {
    let file = Path::new("overrides.toml");
    if let Ok(overrides) = parse(file, text) {
        let again = parse(file, &render(&overrides)).expect("what we write can be read");
        assert_eq!(again.len(), overrides.len());
    }
}
