//! `merge` and `explain` against a model of the layer order.

use proptest::prelude::*;

use super::super::*;

const ORDER: [Layer; 3] = [Layer::Profile, Layer::Server, Layer::Override];

/// One value of each kind, chosen by a number.
fn value(key: &str, n: u8) -> String {
    match key {
        "floor" => ["\"awake\"", "\"dozing\"", "\"deep\""][n as usize % 3].to_owned(),
        "doze_by" => ["\"freeze\"", "\"throttle\""][n as usize % 2].to_owned(),
        "first_speaker" => ["\"client\"", "\"server\"", "\"unknown\""][n as usize % 3].to_owned(),
        "bring_back" => ["\"beside\"", "\"before\"", "\"all\""][n as usize % 3].to_owned(),
        "loopback" | "old_links" => ["\"wake\"", "\"ignore\""][n as usize % 2].to_owned(),
        "busy_cpu_percent" | "deep_after" if n == 0 => "\"never\"".to_owned(),
        "throttle_percent" | "wakes_per_hour" | "busy_cpu_percent" => n.to_string(),
        "resident_min" => format!("\"{}B\"", u64::from(n) + 1),
        "linked" => format!("[\"s{n}\"]"),
        "windows" => format!("[\"mon {:02}:00-{:02}:30\"]", n % 24, n % 24),
        _ => format!("\"{}s\"", n % 60),
    }
}

/// What somebody said: layer, threshold, value.
fn sayings() -> impl Strategy<Value = Vec<(usize, usize, u8)>> {
    prop::collection::vec((0..ORDER.len(), 0..KEYS.len(), any::<u8>()), 0..60)
}

proptest! {
    #[test]
    fn the_highest_layer_that_speaks_wins(sayings in sayings()) {
        // Each layer as a text; the last of several words in one layer holds.
        let mut said = vec![vec![None; KEYS.len()]; ORDER.len()];
        for (layer, key, n) in sayings {
            said[layer][key] = Some(value(KEYS[key], n));
        }
        let layers: Vec<LayerPatch> = ORDER.iter().zip(&said).map(|(layer, words)| {
            let lines = KEYS.iter().zip(words).filter_map(|(key, word)| Some(format!("{key} = {}\n", word.as_ref()?)));
            let text = format!("[limits]\n{}", lines.collect::<String>());
            let profile = format!("select = \"pid:1\"\nprofile = \"x\"\n{text}");
            let patch = ServerFile::parse(std::path::Path::new("s.toml"), &profile).unwrap().patch;
            LayerPatch { layer: *layer, from: format!("{layer:?}"), patch }
        }).collect();

        // The model: built in, then whatever each layer in order says.
        let lowest = Patch::from(&built_in());
        let outcome = Patch::from(&merge(&layers));
        for (number, explained) in explain(&layers).iter().enumerate() {
            let key = KEYS[number];
            let mut expected = vec![(Layer::BuiltIn, lowest.show(key).unwrap())];
            for (layer, words) in ORDER.iter().zip(&said) {
                expected.extend(words[number].clone().map(|word| (*layer, word)));
            }
            let told: Vec<_> = explained.values.iter().map(|value| (value.layer, value.value.clone())).collect();
            prop_assert_eq!(explained.key, key);
            prop_assert_eq!(&told, &expected);
            prop_assert_eq!(outcome.show(key).unwrap(), expected.pop().unwrap().1);
        }
    }

    #[test]
    fn what_is_shown_can_be_typed(key in 0..KEYS.len(), n in any::<u8>()) {
        let patch = Patch::parse_one(KEYS[key], &value(KEYS[key], n)).unwrap();
        let shown = patch.show(KEYS[key]).unwrap();
        prop_assert_eq!(Patch::parse_one(KEYS[key], &shown).unwrap(), patch);
    }
}

#[test]
fn no_layer_is_the_built_in_values() {
    assert_eq!(merge(&[]), built_in());
}

/// The control plane checks and explains thresholds by a list of its own.
#[test]
fn the_registry_s_list_of_thresholds_is_this_one() {
    use dormouse_api::registry::threshold::THRESHOLDS;

    let registry: Vec<_> = THRESHOLDS.iter().map(|one| (one.key, one.built_in.to_owned())).collect();
    let built_in = Patch::from(&built_in());
    let own: Vec<_> = KEYS.iter().map(|key| (*key, built_in.show(key).unwrap())).collect();
    assert_eq!(registry, own);
}
