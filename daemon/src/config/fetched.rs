//! The registry's two layers, out of the copy on the disk.

use std::collections::BTreeMap;
use std::path::Path;

use super::error::ConfigError;
use super::layers::{Layer, LayerPatch};
use super::thresholds::Patch;
use crate::control::copy;

#[derive(Debug, Default)]
pub struct Fetched {
    from: String,
    profiles: BTreeMap<String, Patch>,
    servers: BTreeMap<String, Patch>,
}

type Said = BTreeMap<String, BTreeMap<String, String>>;

impl Fetched {
    /// `None`: never fetched, or not to be read. A value that this version doesn't know is an error of that key
    /// alone: the lower layer's holds.
    pub fn load(state_dir: &Path) -> (Option<Self>, Vec<ConfigError>) {
        let file = copy::file(state_dir);
        let copy = match copy::load(state_dir) {
            Ok(Some(copy)) => copy,
            Ok(None) => return (None, Vec::new()),
            Err(source) => return (None, vec![ConfigError::Read { path: file, source }]),
        };
        let mut errors = Vec::new();
        let fetched = Self {
            from: format!("registry, {}", file.display()),
            profiles: patches(copy.profiles, &mut errors),
            servers: patches(copy.servers, &mut errors),
        };
        (Some(fetched), errors)
    }

    pub fn layers(&self, profile: &str, server: &str) -> Vec<LayerPatch> {
        let layer = |layer, said: Option<&Patch>| LayerPatch {
            layer,
            from: self.from.clone(),
            patch: said.cloned().unwrap_or_default(),
        };
        vec![
            layer(Layer::Profile, self.profiles.get(profile)),
            layer(Layer::Server, self.servers.get(server)),
        ]
    }
}

fn patches(said: Said, errors: &mut Vec<ConfigError>) -> BTreeMap<String, Patch> {
    let mut patch = |keys: BTreeMap<String, String>| {
        let read = keys.iter().filter_map(|(key, value)| match Patch::parse_one(key, value) {
            Ok(patch) => Some(patch),
            Err(error) => {
                errors.push(error);
                None
            }
        });
        read.fold(Patch::default(), |all, one| one.over(all))
    };
    said.into_iter().map(|(name, keys)| (name, patch(keys))).collect()
}

#[cfg(test)]
mod tests {
    use dormouse_api::registry::threshold::NodeProfiles;

    use super::*;

    #[test]
    fn both_layers_come_from_the_copy_and_a_strange_key_hurts_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Fetched::load(folder.path()).0.is_none());
        let said =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut profiles = NodeProfiles::default();
        profiles.profiles.insert("luanti".to_owned(), said(&[("doze_after", "\"7m\""), ("from_2030", "1")]));
        profiles
            .servers
            .insert("acme/x".to_owned(), said(&[("floor", "\"deep\""), ("doze_after", "\"1m\"")]));
        copy::save(folder.path(), &profiles).unwrap();
        let (fetched, errors) = Fetched::load(folder.path());
        assert_eq!(errors.len(), 1);
        let layers = fetched.unwrap().layers("luanti", "acme/x");
        assert_eq!(layers[0].patch.show("doze_after").as_deref(), Some("\"7m\""));
        assert_eq!(layers[1].patch.show("doze_after").as_deref(), Some("\"1m\""));
        assert_eq!(layers[1].patch.show("floor").as_deref(), Some("\"deep\""));
    }
}
