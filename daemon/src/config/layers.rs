//! The one order of layers (design §6): built-in < game profile < server < override.

use serde::Serialize;

use super::thresholds::{KEYS, Patch, built_in};
use crate::limits::Limits;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    BuiltIn,
    Profile,
    Server,
    Override,
}

/// One layer's word, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerPatch {
    pub layer: Layer,
    /// The file, for an override with its end and reason; `built in` for what has no file.
    pub from: String,
    pub patch: Patch,
}

/// Everything that was said about one threshold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    pub key: &'static str,
    /// From the lowest layer to the highest; the last one wins.
    pub values: Vec<LayerValue>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerValue {
    pub layer: Layer,
    pub from: String,
    /// As it would be written in TOML.
    pub value: String,
}

impl Explained {
    /// The one that holds.
    pub fn winner(&self) -> Option<&LayerValue> {
        self.values.last()
    }
}

/// The outcome of the layers, given from low to high, over the built-in values.
pub fn merge(layers: &[LayerPatch]) -> Limits {
    let mut limits = built_in();
    for layer in layers {
        layer.patch.apply_to(&mut limits);
    }
    limits
}

/// For each threshold, what every layer says.
pub fn explain(layers: &[LayerPatch]) -> Vec<Explained> {
    let lowest =
        LayerPatch { layer: Layer::BuiltIn, from: "built in".to_owned(), patch: Patch::from(&built_in()) };
    let say = |key, layer: &LayerPatch| {
        let value = layer.patch.show(key)?;
        Some(LayerValue { layer: layer.layer, from: layer.from.clone(), value })
    };
    let all = |key| std::iter::once(&lowest).chain(layers).filter_map(|layer| say(key, layer)).collect();
    KEYS.iter().map(|key| Explained { key, values: all(*key) }).collect()
}
