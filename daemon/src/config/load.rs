//! From the directories to every server's limits, file by file: one that is wrong takes no other down.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use dormouse_api::shipped::SHIPPED;

use super::error::{ConfigError, nearest};
use super::fetched::Fetched;
use super::layers::{Layer, LayerPatch};
use super::node::{Node, ProfilesFrom};
use super::overrides::{self, Override};
use super::profile::Profile;
use super::reader::{read_file, toml_files};
use super::rules::resolve;
use super::server::{Server, ServerFile};

/// Everything that could be read, and everything that could not. A server with an error is not in
/// `servers`: it stays unmanaged, hence awake.
#[derive(Debug, Default)]
pub struct Loaded {
    pub servers: BTreeMap<String, Server>,
    pub profiles: BTreeMap<String, Arc<Profile>>,
    pub overrides: Vec<Override>,
    pub errors: Vec<ConfigError>,
    overrides_file: PathBuf,
    /// `profiles_from = "control"`: the registry's two layers stand in the files' place.
    fetched: Option<Fetched>,
    /// By profile: why it can't be used.
    broken: BTreeMap<String, String>,
}

/// Reads all files of a node. Overrides that ended before `now` don't count: load again when one ends.
pub fn load(node: &Node, now: SystemTime) -> Loaded {
    let mut loaded = Loaded { overrides_file: node.overrides(), ..Loaded::default() };
    loaded.read_profiles(&node.profile_dir);
    if node.profiles_from == ProfilesFrom::Control {
        let (fetched, errors) = Fetched::load(&node.state_dir);
        loaded.fetched = fetched;
        loaded.errors.extend(errors);
    }
    match overrides::get(&loaded.overrides_file, now) {
        Ok(entries) => loaded.overrides = entries,
        Err(error) => loaded.errors.push(error),
    }
    for file in loaded.read_servers(&node.server_dir) {
        match loaded.join(file) {
            Ok(server) => {
                loaded.servers.insert(server.file.name.clone(), server);
            }
            Err(error) => loaded.errors.push(error),
        }
    }
    loaded
}

impl Loaded {
    /// The next end of an override, when the limits change without any file changing.
    pub fn next_end(&self) -> Option<SystemTime> {
        self.overrides.iter().map(|entry| entry.until).min()
    }

    /// Writes an override if its server exists and its limits stay sound with it.
    pub fn set(&self, entry: Override, now: SystemTime) -> Result<(), ConfigError> {
        let Some(server) = self.servers.get(&entry.server) else {
            let suggestion = nearest(&entry.server, self.servers.keys().map(String::as_str));
            return Err(ConfigError::UnknownServer { name: entry.server, suggestion });
        };
        let mut layers = server.layers.clone();
        layers.push(entry.layer(Path::new("this command")));
        resolve(&entry.server, &server.profile, &layers)?;
        overrides::set(&self.overrides_file, entry, now)
    }

    fn read_profiles(&mut self, directory: &Path) {
        for (name, text) in SHIPPED {
            self.add_profile(name, Profile::parse(name, "built in", text));
        }
        for file in self.list(directory) {
            let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let text = read_file(&file).map(Option::unwrap_or_default);
            let from = file.display().to_string();
            self.add_profile(&name, text.and_then(|text| Profile::parse(&name, &from, &text)));
        }
    }

    /// A broken file does not fall back to the shipped profile: its author wanted something else.
    fn add_profile(&mut self, name: &str, outcome: Result<Profile, ConfigError>) {
        match outcome {
            Ok(profile) => {
                self.profiles.insert(name.to_owned(), Arc::new(profile));
            }
            Err(error) => {
                self.profiles.remove(name);
                self.broken.insert(name.to_owned(), error.to_string());
                self.errors.push(error);
            }
        }
    }

    /// The server files that are sound in themselves and whose names are their own.
    fn read_servers(&mut self, directory: &Path) -> Vec<ServerFile> {
        let mut by_name: BTreeMap<String, Vec<ServerFile>> = BTreeMap::new();
        for file in self.list(directory) {
            let text = read_file(&file).map(Option::unwrap_or_default);
            match text.and_then(|text| ServerFile::parse(&file, &text)) {
                Ok(server) => by_name.entry(server.name.clone()).or_default().push(server),
                Err(error) => self.errors.push(error),
            }
        }
        let mut servers = Vec::new();
        for (name, mut files) in by_name {
            match (files.pop(), files.pop()) {
                (Some(second), Some(first)) => self.errors.push(ConfigError::DuplicateServer {
                    name,
                    first: first.file,
                    second: second.file,
                }),
                (only, _) => servers.extend(only),
            }
        }
        servers
    }

    fn list(&mut self, directory: &Path) -> Vec<PathBuf> {
        toml_files(directory).unwrap_or_else(|error| {
            self.errors.push(error);
            Vec::new()
        })
    }

    fn join(&self, file: ServerFile) -> Result<Server, ConfigError> {
        let profile = self.profile(&file)?;
        let from = file.file.display().to_string();
        let mut layers = match &self.fetched {
            Some(fetched) => fetched.layers(&file.profile, &file.name),
            None => {
                vec![profile.layer(), LayerPatch { layer: Layer::Server, from, patch: file.patch.clone() }]
            }
        };
        let of_server = self.overrides.iter().filter(|entry| entry.server == file.name);
        layers.extend(of_server.map(|entry| entry.layer(&self.overrides_file)));
        let limits = resolve(&file.name, &profile, &layers)?;
        Ok(Server { file, profile, limits, layers })
    }

    fn profile(&self, file: &ServerFile) -> Result<Arc<Profile>, ConfigError> {
        if let Some(profile) = self.profiles.get(&file.profile) {
            return Ok(Arc::clone(profile));
        }
        let (path, profile) = (file.file.clone(), file.profile.clone());
        if let Some(reason) = self.broken.get(&profile) {
            return Err(ConfigError::BrokenProfile { file: path, profile, reason: reason.clone() });
        }
        Err(ConfigError::UnknownProfile {
            file: path,
            suggestion: nearest(&profile, self.profiles.keys().map(String::as_str)),
            profile,
            known: self.profiles.keys().cloned().collect(),
        })
    }
}
