//! A game's own limits and protocol, from a file shipped inside the binary or one of the operator's.

use std::path::Path;

use dormouse_packet::Game;

use super::error::ConfigError;
use super::layers::{Layer, LayerPatch};
use super::reader::{Entry, Section, Source};
use super::rules::resolve;
use super::thresholds::Patch;
use super::value::{PortSpec, quoted};
use crate::limits::Floor;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    pub name: String,
    /// The file it is from; `built in` for a shipped one.
    pub from: String,
    /// The game's parser; `None` = the generic one of the port's transport.
    pub protocol: Option<Game>,
    /// The game's usual ports.
    pub ports: Vec<PortSpec>,
    pub patch: Patch,
    pub watchdog: Watchdog,
    pub save: Save,
    /// Peers' ports of outbound connections that bear a freeze.
    pub harmless_outbound: Vec<PortSpec>,
    pub ready: Ready,
    /// Why servers of this kind are never put to sleep at all.
    pub refuse: Option<String>,
    /// Why they are never frozen.
    pub refuse_freeze: Option<String>,
    /// `None` = nobody has seen this profile work on the real game.
    pub verified: Option<Verified>,
}

/// What kills the game when its clock stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watchdog {
    /// The game is known to have none.
    None,
    /// Not known: no freeze unless the operator asserts that it is off.
    Unknown,
    /// A freeze is safe if every one of these holds.
    Settings(Vec<WatchdogCheck>),
}

/// A setting with which a freeze is safe, written `server.properties:max-tick-time=-1`. With a `?` after the
/// file it holds also where there is no such file; a key that is not in its file never holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchdogCheck {
    /// Relative to the server's working directory.
    pub file: String,
    pub optional: bool,
    /// In structured files with a dot between the levels.
    pub key: String,
    pub value: String,
}

/// What shows that the world is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Save {
    /// There is nothing to save.
    NotNeeded,
    Evidence {
        /// The game's own command, told to the operator who has no `before_doze` hook yet.
        command: Option<SaveCommand>,
        /// One of these closed after the last player. Relative to the server's working directory, or
        /// absolute in its root.
        files: Vec<glob::Pattern>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaveCommand {
    pub command: String,
    /// A text in the answer of a save that succeeded.
    pub expect: Option<String>,
}

/// What a server must show after a thaw to be alive as a player would need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ready {
    /// Its processes run.
    Alive,
    /// Its ports have their sockets and their queues get empty.
    Listening,
    /// It answers its protocol's status query.
    Status,
}

/// Who has seen this profile sleep and wake the real game.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Verified {
    pub version: String,
    pub date: String,
    pub by: String,
}

impl Profile {
    /// Reads one profile and holds it to the rules of every server's limits; `from` is told in `explain`.
    pub fn parse(name: &str, from: &str, text: &str) -> Result<Self, ConfigError> {
        let mut root = Section::parse(Source { file: Path::new(from), text })?;
        let verified = root.entry("verified");
        let profile = Self {
            name: name.to_owned(),
            from: from.to_owned(),
            protocol: root.optional("protocol")?,
            ports: root.optional("ports")?.unwrap_or_default(),
            patch: root.section("limits")?.map(Patch::read).transpose()?.unwrap_or_default(),
            watchdog: root.entry("watchdog").map_or(Ok(Watchdog::Unknown), |entry| read_watchdog(&entry))?,
            save: root.entry("save").map_or(Ok(Save::UNKNOWN), read_save)?,
            harmless_outbound: root.optional("harmless_outbound")?.unwrap_or_default(),
            ready: root.optional("ready")?.unwrap_or(Ready::Listening),
            refuse: root.optional("refuse")?,
            refuse_freeze: root.optional("refuse_freeze")?,
            verified: verified.map(read_verified).transpose()?.flatten(),
        };
        root.finish()?;
        let limits = resolve(&format!("profile {name}"), &profile, &[profile.layer()])?;
        if profile.verified.is_none() && limits.floor == Floor::Deep {
            return Err(ConfigError::Rule {
                subject: format!("profile {name}"),
                key: "floor",
                value: quoted("deep"),
                from: from.to_owned(),
                rule:
                    "a profile with verified = \"never\" may not promise deep; a server file may ask for it"
                        .to_owned(),
            });
        }
        Ok(profile)
    }

    pub fn layer(&self) -> LayerPatch {
        LayerPatch { layer: Layer::Profile, from: self.from.clone(), patch: self.patch.clone() }
    }
}

impl Save {
    const UNKNOWN: Self = Self::Evidence { command: None, files: Vec::new() };
}

fn read_watchdog(entry: &Entry<'_>) -> Result<Watchdog, ConfigError> {
    let expected =
        "allowed are \"none\", \"unknown\" or a list like [\"server.properties:max-tick-time=-1\"]";
    match entry.read::<String>().as_deref() {
        Ok("none") => return Ok(Watchdog::None),
        Ok("unknown") => return Ok(Watchdog::Unknown),
        _ => {}
    }
    let settings = entry.read::<Vec<String>>().map_err(|_| entry.bad(expected.to_owned()))?;
    let check = |setting: &String| {
        let (file, rest) = setting.split_once(':')?;
        let (key, value) = rest.split_once('=')?;
        let (file, optional) = file.strip_suffix('?').map_or((file, false), |file| (file, true));
        let sound = !file.is_empty() && !key.is_empty() && !value.is_empty();
        sound.then(|| WatchdogCheck {
            file: file.to_owned(),
            optional,
            key: key.to_owned(),
            value: value.to_owned(),
        })
    };
    let checks: Option<Vec<_>> = settings.iter().map(check).collect();
    checks
        .filter(|checks| !checks.is_empty())
        .map(Watchdog::Settings)
        .ok_or_else(|| entry.bad(expected.to_owned()))
}

fn read_save(entry: Entry<'_>) -> Result<Save, ConfigError> {
    if entry.read::<String>().is_ok_and(|word| word == "not-needed") {
        return Ok(Save::NotNeeded);
    }
    if !entry.is_table() {
        let expected =
            "allowed are \"not-needed\" or a table with hook = { command, expect } and files = [\"…\"]";
        return Err(entry.bad(expected.to_owned()));
    }
    let mut section = entry.section()?;
    let command = section.section("hook")?.map(read_command).transpose()?;
    let files = section.optional("files")?.unwrap_or_default();
    section.finish()?;
    Ok(Save::Evidence { command, files })
}

fn read_command(mut section: Section<'_>) -> Result<SaveCommand, ConfigError> {
    let command = SaveCommand { command: section.required("command")?, expect: section.optional("expect")? };
    section.finish()?;
    Ok(command)
}

fn read_verified(entry: Entry<'_>) -> Result<Option<Verified>, ConfigError> {
    if entry.read::<String>().is_ok_and(|word| word == "never") {
        return Ok(None);
    }
    if !entry.is_table() {
        return Err(entry.bad("allowed are \"never\" or { version, date, by }".to_owned()));
    }
    let mut section = entry.section()?;
    let verified = Verified {
        version: section.required("version")?,
        date: section.required("date")?,
        by: section.required("by")?,
    };
    section.finish()?;
    Ok(Some(verified))
}
