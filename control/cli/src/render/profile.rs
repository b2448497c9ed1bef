//! `dormouse profile`.

use dormouse_api::profile::{Explain, ProfileSummary, Setting};

use super::table::table;
use crate::units::Clock;

pub fn list(profiles: &[ProfileSummary]) -> String {
    let rows: Vec<_> = profiles
        .iter()
        .map(|profile| {
            [
                profile.name.clone(),
                profile.servers.to_string(),
                profile.doze_by.clone(),
                profile.doze_after.clone(),
                profile.deep_after.clone().unwrap_or_else(|| "never".to_owned()),
                profile.floor.clone(),
                profile.verified.clone().unwrap_or_else(|| "never".to_owned()),
            ]
        })
        .collect();
    table(["PROFILE", "SERVERS", "DOZE BY", "DOZE AFTER", "DEEP AFTER", "FLOOR", "VERIFIED"], &rows)
}

/// The values that hold.
pub fn values(settings: &[Setting]) -> String {
    let row = |one: &Setting| [one.key.clone(), one.value.clone(), one.won.title().to_owned()];
    table(["KEY", "VALUE", "FROM"], &settings.iter().map(row).collect::<Vec<_>>())
}

/// Every layer, low to high; `*` is the one that won.
pub fn explain(explain: &Explain, clock: &Clock) -> String {
    let mut rows = Vec::new();
    for setting in &explain.settings {
        for (index, layer) in setting.layers.iter().enumerate() {
            let until = layer.until_at_ms.map(|at_ms| format!("until {}", clock.minute(at_ms)));
            let origin: Vec<_> = layer.file.clone().into_iter().chain(until).collect();
            rows.push([
                if index == 0 { setting.key.clone() } else { String::new() },
                format!("{} {}", if layer.layer == setting.won { '*' } else { ' ' }, layer.layer.title()),
                layer.value.clone(),
                origin.join(", "),
            ]);
        }
    }
    let name = if explain.name == explain.profile {
        format!("profile {}", explain.profile)
    } else {
        format!("{}  profile {}", explain.name, explain.profile)
    };
    format!("{name}\n{}", table(["KEY", "  LAYER", "VALUE", "WHERE"], &rows))
}

#[cfg(test)]
mod tests {
    use dormouse_api::profile::{Layer, LayerValue};
    use jiff::tz::TimeZone;

    use super::*;

    fn explained() -> Explain {
        let layer = |layer, value: &str, file: Option<&str>, until_at_ms| LayerValue {
            layer,
            value: value.into(),
            file: file.map(Into::into),
            until_at_ms,
        };
        let doze_after = Setting {
            key: "doze_after".into(),
            value: "5m".into(),
            won: Layer::Override,
            layers: vec![
                layer(Layer::BuiltIn, "30m", None, None),
                layer(Layer::Profile, "10m", Some("profiles/minecraft-java.toml"), None),
                layer(Layer::Override, "5m", Some("overrides.toml"), Some(1_795_000_000_000)),
            ],
        };
        let floor = Setting {
            key: "floor".into(),
            value: "deep".into(),
            won: Layer::BuiltIn,
            layers: vec![layer(Layer::BuiltIn, "deep", None, None)],
        };
        Explain {
            name: "acme/creative".into(),
            profile: "minecraft-java".into(),
            settings: vec![doze_after, floor],
        }
    }

    #[test]
    fn every_layer_and_the_winner() {
        let clock = Clock { now_ms: 1_795_000_000_000, zone: TimeZone::UTC };
        assert_eq!(
            explain(&explained(), &clock),
            "\
acme/creative  profile minecraft-java
KEY           LAYER     VALUE  WHERE
doze_after    built-in  30m
              profile   10m    profiles/minecraft-java.toml
            * override  5m     overrides.toml, until 11:06
floor       * built-in  deep
"
        );
    }

    #[test]
    fn the_values_alone() {
        assert_eq!(
            values(&explained().settings),
            "\
KEY         VALUE  FROM
doze_after  5m     override
floor       deep   built-in
"
        );
    }

    #[test]
    fn the_profiles() {
        let luanti = ProfileSummary {
            name: "luanti".into(),
            servers: 2,
            doze_by: "freeze".into(),
            doze_after: "5m".into(),
            deep_after: Some("15m".into()),
            floor: "deep".into(),
            verified: Some("5.13, 2026-11-20".into()),
        };
        let rust = ProfileSummary {
            name: "rust".into(),
            servers: 0,
            doze_by: "throttle".into(),
            doze_after: "30m".into(),
            deep_after: None,
            floor: "awake".into(),
            verified: None,
        };
        assert_eq!(
            list(&[luanti, rust]),
            "\
PROFILE  SERVERS  DOZE BY   DOZE AFTER  DEEP AFTER  FLOOR  VERIFIED
luanti   2        freeze    5m          15m         deep   5.13, 2026-11-20
rust     0        throttle  30m         never       awake  never
"
        );
    }
}
