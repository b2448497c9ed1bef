//! The one order of layers (design §6): built-in < game profile < server < override. Overrides are the node's own, so
//! the registry knows the first three.

use std::collections::BTreeMap;

use dormouse_api::profile::{Layer, LayerValue, Setting, shown};
use dormouse_api::registry::threshold::THRESHOLDS;

/// One layer's word, by key, each value as TOML writes it.
pub type Said = BTreeMap<String, String>;

/// Where a registry's layer stands, instead of a file.
const REGISTRY: &str = "registry";

/// For every threshold what each layer says, from the lowest to the highest; the last one wins.
pub fn explain(profile: &Said, server: Option<&Said>) -> Vec<Setting> {
    THRESHOLDS
        .iter()
        .map(|threshold| {
            let said = |layer, said: Option<&Said>| {
                let value = said?.get(threshold.key)?;
                Some(value_of(layer, value, Some(REGISTRY)))
            };
            let mut layers = vec![value_of(Layer::BuiltIn, threshold.built_in, None)];
            layers.extend(said(Layer::Profile, Some(profile)));
            layers.extend(said(Layer::Server, server));
            let winner = &layers[layers.len() - 1];
            Setting { key: threshold.key.to_owned(), value: winner.value.clone(), won: winner.layer, layers }
        })
        .collect()
}

fn value_of(layer: Layer, value: &str, file: Option<&str>) -> LayerValue {
    LayerValue { layer, value: shown(value), file: file.map(ToOwned::to_owned), until_at_ms: None }
}

#[cfg(test)]
mod tests {
    use proptest::collection::btree_map;
    use proptest::prelude::*;

    use super::*;

    /// What holds for a key, in the words of the design.
    fn model(key: &str, profile: &Said, server: Option<&Said>) -> (Layer, String) {
        let mut holds = None;
        for threshold in THRESHOLDS {
            if threshold.key == key {
                holds = Some((Layer::BuiltIn, threshold.built_in.to_owned()));
            }
        }
        if profile.contains_key(key) {
            holds = Some((Layer::Profile, profile[key].clone()));
        }
        if let Some(server) = server
            && server.contains_key(key)
        {
            holds = Some((Layer::Server, server[key].clone()));
        }
        holds.unwrap()
    }

    fn said() -> impl Strategy<Value = Said> {
        let key = (0..THRESHOLDS.len()).prop_map(|index| THRESHOLDS[index].key.to_owned());
        btree_map(key, "[a-z0-9]{1,4}", 0..THRESHOLDS.len())
    }

    proptest! {
        #[test]
        fn the_highest_layer_that_speaks_wins(profile in said(), server in proptest::option::of(said())) {
            let settings = explain(&profile, server.as_ref());
            prop_assert_eq!(settings.len(), THRESHOLDS.len());
            for setting in settings {
                let (layer, value) = model(&setting.key, &profile, server.as_ref());
                prop_assert_eq!((setting.won, setting.value), (layer, shown(&value)));
                prop_assert!(setting.layers.is_sorted_by_key(|said| said.layer));
                let spoke = 1
                    + usize::from(profile.contains_key(&setting.key))
                    + usize::from(server.as_ref().is_some_and(|said| said.contains_key(&setting.key)));
                prop_assert_eq!(setting.layers.len(), spoke);
            }
        }
    }
}
