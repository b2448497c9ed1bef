//! A server file: which processes are meant, and what may be done to them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dormouse_packet::Game;

use super::error::{ConfigError, Place};
use super::hooks::Hooks;
use super::layers::LayerPatch;
use super::profile::{Profile, Save, Watchdog};
use super::reader::{Entry, Section, Source};
use super::thresholds::Patch;
use super::value::{PortSpec, Show, Transport};
use crate::discover::selector::{ParseSelectorError, Selector};
use crate::limits::{Limits, Mode};

/// One server file, read but not yet joined with its profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFile {
    pub file: PathBuf,
    /// `survival`, or `acme/survival` with the tenant before it.
    pub name: String,
    /// Where its cgroup is found. Resolved again after each restart of the server.
    pub select: Selector,
    pub profile: String,
    pub mode: Mode,
    /// Empty = found from the listening sockets.
    pub ports: Vec<ServerPort>,
    /// Instead of the profile's.
    pub save_files: Option<Vec<glob::Pattern>>,
    pub patch: Patch,
    pub assertions: Assertions,
    pub hooks: Hooks,
}

/// A server with everything that was said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub file: ServerFile,
    pub profile: Arc<Profile>,
    pub limits: Limits,
    /// From low to high, for `explain`; the built-in values lie under them.
    pub layers: Vec<LayerPatch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerPort {
    pub port: PortSpec,
    /// `None` = the profile's.
    pub protocol: Option<Game>,
}

/// What the operator vouches for, each with the reason they gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assertions {
    pub watchdog_off: Option<String>,
    pub save_not_needed: Option<String>,
    pub outbound_harmless: Option<String>,
}

impl ServerFile {
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut root = Section::parse(Source { file, text })?;
        let server = Self {
            file: file.to_owned(),
            name: read_name(&mut root, file)?,
            select: read_selector(&mut root)?,
            profile: root.required("profile")?,
            mode: root.optional("mode")?.unwrap_or_default(),
            ports: root.entry("ports").map_or(Ok(Vec::new()), read_ports)?,
            save_files: root.optional("save_files")?,
            patch: root.section("limits")?.map(Patch::read).transpose()?.unwrap_or_default(),
            assertions: root.section("assert")?.map(Assertions::read).transpose()?.unwrap_or_default(),
            hooks: root.section("hooks")?.map(Hooks::read).transpose()?.unwrap_or_default(),
        };
        root.finish()?;
        Ok(server)
    }
}

impl Server {
    pub fn name(&self) -> &str {
        &self.file.name
    }

    /// The parser for one of its ports: the port's own, else the profile's where the transport fits, else
    /// the generic one.
    pub fn game(&self, port: PortSpec) -> Game {
        let own = self.file.ports.iter().find(|own| own.port == port).and_then(|own| own.protocol);
        own.or(self.profile.protocol).filter(|game| transport(*game) == port.transport).unwrap_or(match port
            .transport
        {
            Transport::Tcp => Game::GenericTcp,
            Transport::Udp => Game::GenericUdp,
        })
    }

    /// The files that show a save; `None` if there is nothing to save, or its operator vouches for that.
    pub fn save_files(&self) -> Option<&[glob::Pattern]> {
        match &self.profile.save {
            _ if self.file.assertions.save_not_needed.is_some() => None,
            Save::NotNeeded => None,
            Save::Evidence { files, .. } => Some(self.file.save_files.as_ref().unwrap_or(files)),
        }
    }

    /// What has to be looked at before a freeze; nothing if its operator vouches for it.
    pub fn watchdog(&self) -> &Watchdog {
        if self.file.assertions.watchdog_off.is_some() { &Watchdog::None } else { &self.profile.watchdog }
    }

    /// Whether an outbound connection to this port of a peer bears a freeze.
    pub fn bears_outbound(&self, peer: PortSpec) -> bool {
        self.file.assertions.outbound_harmless.is_some() || self.profile.harmless_outbound.contains(&peer)
    }
}

impl Assertions {
    fn read(mut section: Section<'_>) -> Result<Self, ConfigError> {
        let mut assertion =
            |key, word| section.entry(key).map(|entry| read_assertion(entry, word)).transpose();
        let assertions = Self {
            watchdog_off: assertion("watchdog", "off")?,
            save_not_needed: assertion("save", "not-needed")?,
            outbound_harmless: assertion("outbound", "harmless")?,
        };
        section.finish()?;
        Ok(assertions)
    }
}

fn read_assertion(entry: Entry<'_>, word: &str) -> Result<String, ConfigError> {
    let expected = format!("expected {{ value = \"{word}\", reason = \"why you know\" }}");
    if !entry.is_table() {
        return Err(entry.bad(expected));
    }
    let mut section = entry.section()?;
    match section.entry("value") {
        None => return Err(section.missing("value", expected)),
        Some(value) if value.read::<String>().is_ok_and(|found| found == word) => {}
        Some(value) => return Err(value.bad(format!("the only value is \"{word}\""))),
    }
    let reason = section.required("reason")?;
    section.finish()?;
    Ok(reason)
}

/// A server's name: as written, else the file's name without its ending.
fn read_name(root: &mut Section<'_>, file: &Path) -> Result<String, ConfigError> {
    let expected = "expected NAME or TENANT/NAME of a-z, 0-9, `-`, `_` and `.`, at most 128 letters";
    let Some(entry) = root.entry("name") else {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if is_name(&stem) {
            return Ok(stem);
        }
        return Err(ConfigError::BadValue {
            place: Place { file: file.to_owned(), line: None },
            key: "name".to_owned(),
            found: stem.show(),
            expected: format!("the file's name is no server name; set `name`: {expected}"),
        });
    };
    let name: String = entry.read()?;
    if is_name(&name) { Ok(name) } else { Err(entry.bad(expected.to_owned())) }
}

/// The letters are safe in a path, a metric's label and a shell.
fn is_name(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    let part = |part: &str| {
        part.bytes().all(letter) && part.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
    };
    name.len() <= 128 && name.split('/').count() <= 2 && name.split('/').all(part)
}

fn read_selector(root: &mut Section<'_>) -> Result<Selector, ConfigError> {
    let Some(entry) = root.entry("select") else {
        return Err(root.missing("select", ParseSelectorError::Kind.to_string()));
    };
    let text: String = entry.read()?;
    text.parse().map_err(|error: ParseSelectorError| entry.bad(error.to_string()))
}

fn read_ports(entry: Entry<'_>) -> Result<Vec<ServerPort>, ConfigError> {
    let elements = entry.elements("expected a list like [\"tcp/25565\", \"udp/30000\"]")?;
    let mut ports: Vec<ServerPort> = Vec::new();
    for element in elements {
        let twice = element.bad("this port is already in the list".to_owned());
        let port = read_port(element)?;
        if ports.iter().any(|known| known.port == port.port) {
            return Err(twice);
        }
        ports.push(port);
    }
    Ok(ports)
}

fn read_port(element: Entry<'_>) -> Result<ServerPort, ConfigError> {
    if !element.is_table() {
        return Ok(ServerPort { port: element.read()?, protocol: None });
    }
    let mut section = element.section()?;
    let port: PortSpec = section.required("port")?;
    let protocol = section.entry("protocol");
    section.finish()?;
    let Some(protocol) = protocol else { return Ok(ServerPort { port, protocol: None }) };
    let game: Game = protocol.read()?;
    if transport(game) != port.transport {
        return Err(protocol.bad(format!("this protocol is not spoken on {port}")));
    }
    Ok(ServerPort { port, protocol: Some(game) })
}

/// What a game's protocol is carried by.
fn transport(game: Game) -> Transport {
    match game {
        Game::GenericTcp | Game::MinecraftJava => Transport::Tcp,
        Game::GenericUdp | Game::Luanti | Game::Teeworlds => Transport::Udp,
    }
}
