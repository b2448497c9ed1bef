//! The shipped profiles keep the promises of the design.

use std::time::Duration;

use dormouse_api::shipped::SHIPPED;
use dormouse_packet::Game;

use super::super::*;
use crate::limits::{DozeBy, Floor, Limits};

fn shipped() -> Vec<(Profile, Limits)> {
    SHIPPED
        .iter()
        .map(|(name, text)| {
            let profile =
                Profile::parse(name, "built in", text).unwrap_or_else(|error| panic!("{name}: {error}"));
            let limits = merge(&[profile.layer()]);
            (profile, limits)
        })
        .collect()
}

fn limits(name: &str) -> Limits {
    shipped().into_iter().find(|(profile, _)| profile.name == name).unwrap().1
}

#[test]
fn every_profile_obeys_the_rules_for_all() {
    for (profile, limits) in shipped() {
        let name = &profile.name;
        assert_eq!(limits.min_awake, Duration::from_mins(5), "{name}");
        assert_eq!(limits.grace_after_start, Duration::from_mins(10), "{name}");
        assert_eq!(limits.wakes_per_hour, 12, "{name}");
        assert!(profile.verified.is_some() || limits.floor < Floor::Deep, "{name}: unverified and deep");
        assert!(
            profile.watchdog != Watchdog::Unknown || limits.doze_by == DozeBy::Throttle,
            "{name}: unknown freezes"
        );
    }
}

#[test]
fn every_profile_says_who_verified_it() {
    for (name, text) in SHIPPED {
        assert!(text.lines().any(|line| line.starts_with("verified = ")), "{name}");
    }
}

/// A number without its reason is a number nobody dares to change.
#[test]
fn every_number_has_a_reason() {
    for (name, text) in SHIPPED {
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines[lines.iter().position(|line| *line == "[limits]").unwrap()..].windows(2) {
            let number = pair[1].starts_with(|first: char| first.is_ascii_lowercase())
                && pair[1].contains(|letter: char| letter.is_ascii_digit());
            assert!(!number || pair[0].starts_with('#'), "{name}: {}", pair[1]);
        }
    }
}

#[test]
fn every_protocol_fits_its_ports() {
    for (profile, _) in shipped() {
        let transport = match profile.protocol {
            Some(Game::MinecraftJava | Game::GenericTcp) => Transport::Tcp,
            Some(_) => Transport::Udp,
            None => continue,
        };
        assert!(profile.ports.iter().all(|port| port.transport == transport), "{}", profile.name);
    }
}

/// The table of the design, row by row: minutes to dozing, minutes from there to deep, floor, way.
#[test]
fn the_table_of_games() {
    use DozeBy::{Freeze, Throttle};
    use Floor::{Awake, Dozing};
    let rows = [
        ("minecraft-java", 10, Some(20), Dozing, Freeze),
        ("minecraft-bedrock", 10, None, Dozing, Throttle),
        ("valheim", 35, Some(20), Dozing, Throttle),
        ("valheim-crossplay", 30, None, Awake, Throttle),
        ("rust", 30, None, Awake, Throttle),
        ("factorio", 5, Some(15), Dozing, Freeze),
        ("terraria", 10, Some(20), Dozing, Freeze),
        ("palworld", 10, Some(20), Dozing, Freeze),
        ("luanti", 5, Some(15), Dozing, Freeze),
        ("teeworlds", 5, None, Dozing, Freeze),
        ("ddnet", 5, None, Dozing, Freeze),
        ("quake3", 5, None, Dozing, Freeze),
        ("source", 30, None, Awake, Throttle),
        ("project-zomboid", 30, None, Awake, Throttle),
        ("generic-tcp", 30, None, Dozing, Throttle),
        ("generic-udp", 30, None, Dozing, Throttle),
    ];
    assert_eq!(rows.len(), SHIPPED.len());
    for (name, doze, deep, floor, way) in rows {
        let limits = limits(name);
        assert_eq!(limits.doze_after, Duration::from_mins(doze), "{name}");
        assert_eq!(limits.deep_after, deep.map(Duration::from_mins), "{name}");
        assert_eq!((limits.floor, limits.doze_by), (floor, way), "{name}");
    }
}

#[test]
fn only_rounds_need_no_save() {
    let without: Vec<String> = shipped()
        .into_iter()
        .filter(|(profile, _)| profile.save == Save::NotNeeded)
        .map(|(profile, _)| profile.name)
        .collect();
    assert_eq!(without, ["ddnet", "quake3", "teeworlds"]);
}

#[test]
fn the_settings_of_minecrafts_watchdogs() {
    let (minecraft, _) = shipped().into_iter().find(|(profile, _)| profile.name == "minecraft-java").unwrap();
    let check = |file: &str, optional, key: &str| WatchdogCheck {
        file: file.to_owned(),
        optional,
        key: key.to_owned(),
        value: "-1".to_owned(),
    };
    assert_eq!(
        minecraft.watchdog,
        Watchdog::Settings(vec![
            check("server.properties", false, "max-tick-time"),
            check("spigot.yml", true, "settings.timeout-time"),
        ])
    );
}
