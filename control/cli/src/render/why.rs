//! `dormouse why`.

use std::fmt::Write;

use dormouse_api::status::{Mode, Stage};
use dormouse_api::why::{DeepWake, LastWake, NextWake, Refused, Save, SleeperMemory, Why};

use super::{kept, mode, phases, stage};
use crate::units::{self, Clock, Unit, count};

pub fn why(why: &Why, clock: &Clock) -> String {
    let mut text = format!(
        "{}  cgroup {}  {} since {} ({})",
        why.server,
        why.cgroup,
        stage(why.stage),
        clock.time(why.since_at_ms),
        clock.since(why.since_at_ms)
    );
    match why.mode {
        Mode::Full => {}
        Mode::Doze => text.push_str("  mode doze"),
        Mode::Observe => {
            let _ = write!(text, "  mode {}: nothing is touched", mode(Mode::Observe));
        }
    }
    text.push('\n');
    let asleep = matches!(why.stage, Stage::Dozing | Stage::Deep);
    section(&mut text, if asleep { "Why asleep" } else { "Why awake" }, &reasons(why, clock));
    section(&mut text, "Handed back", &why.memory.iter().map(memory).collect::<Vec<_>>());
    if asleep || why.refused != Refused::default() {
        section(&mut text, "Refused", &[refused(&why.refused)]);
    }
    section(&mut text, "Next wake", &why.next_wake.iter().map(next_wake).collect::<Vec<_>>());
    if !matches!(why.next_wake, Some(NextWake::Deep(_))) {
        section(&mut text, "From deep", &why.deep_wake.iter().map(deep_wake).collect::<Vec<_>>());
    }
    section(
        &mut text,
        "Last wake",
        &why.last_wake.iter().flat_map(|wake| last_wake(wake, clock)).collect::<Vec<_>>(),
    );
    text
}

/// A title, and its lines beside it.
fn section(text: &mut String, title: &str, lines: &[String]) {
    for (index, line) in lines.iter().enumerate() {
        let title = if index == 0 { title } else { "" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{title:<13}{}", line.replace('\n', " "));
    }
}

fn reasons(why: &Why, clock: &Clock) -> Vec<String> {
    let mut lines = why.reasons.clone();
    lines.extend(why.kept.as_ref().map(|one| kept(one, clock)));
    let mut player = match why.last_player_at_ms {
        Some(at_ms) => format!("last player packet {}", clock.time(at_ms)),
        None => "no player packet yet".to_owned(),
    };
    for (index, limit) in why.limits.iter().enumerate() {
        let mark = if index == 0 { ';' } else { ',' };
        let _ = write!(player, "{mark} {} {} ({})", limit.key, limit.value, limit.layer.title());
    }
    lines.push(player);
    let save = why.save.as_ref().map(|save| match save {
        Save::Saved { at_ms, by, took_ms: Some(took_ms) } => {
            format!("world saved {} ({by}, {})", clock.time(*at_ms), units::seconds(*took_ms))
        }
        Save::Saved { at_ms, by, took_ms: None } => format!("world saved {} ({by})", clock.time(*at_ms)),
        Save::NotNeeded { reason } => format!("nothing to save ({reason})"),
        Save::Missing { reason } => format!("no save evidence ({reason})"),
    });
    let watchdog = why.watchdog.as_ref().map(|watchdog| format!("watchdog {watchdog}"));
    let evidence: Vec<_> = save.into_iter().chain(watchdog).collect();
    if !evidence.is_empty() {
        lines.push(evidence.join("; "));
    }
    lines
}

fn memory(memory: &SleeperMemory) -> String {
    let unit = Unit::of(memory.size_bytes);
    let back = unit.count(memory.handed_back.bytes);
    let mut line = format!("{back} of {} {}", unit.count(memory.size_bytes), unit.name);
    if memory.handed_back.estimated {
        line = format!("about {line} (estimated from the node's free memory)");
    } else if let Some(current) = memory.current_bytes {
        let _ = write!(line, " (memory.current {})", units::bytes(current));
    }
    if memory.swap_written_bytes > 0 {
        let _ = write!(line, "; {} written to swap this sleep", units::bytes(memory.swap_written_bytes));
    }
    line
}

fn refused(refused: &Refused) -> String {
    let mut who = Vec::new();
    if refused.pings > 0 {
        let answered = match refused.pings_answered {
            all if all == refused.pings => "answered".to_owned(),
            some => format!("{some} answered"),
        };
        who.push(format!("{} ({answered})", count(refused.pings, "status ping", "status pings")));
    }
    if refused.probes > 0 {
        who.push(count(refused.probes, "probe", "probes"));
    }
    if refused.scans > 0 {
        let addresses = count(refused.scan_addresses, "address", "addresses");
        who.push(format!("{} from {addresses}", count(refused.scans, "scan", "scans")));
    }
    if who.is_empty() {
        who.push("nobody came".to_owned());
    }
    format!("{}: {}", who.join(", "), count(refused.false_wakes, "wake", "wakes"))
}

fn next_wake(wake: &NextWake) -> String {
    match wake {
        NextWake::Dozing { last_answer_ns: Some(ns) } => {
            format!(
                "about {} ms to the first answer, as the last time: its memory is resident",
                units::ms(*ns)
            )
        }
        NextWake::Dozing { last_answer_ns: None } => "a thaw: its memory is resident".to_owned(),
        NextWake::Deep(wake) => deep_wake(wake),
        NextWake::Unknown { reason } => format!("unknown: {reason}"),
    }
}

fn deep_wake(wake: &DeepWake) -> String {
    let bytes = units::bytes(wake.working_set_bytes);
    let (what, recorded) = match wake.wakes_recorded {
        0 => (format!("{bytes} at most"), "no wake recorded yet".to_owned()),
        wakes => {
            (format!("a {bytes} working set"), format!("{} recorded", count(wakes.into(), "wake", "wakes")))
        }
    };
    let mut known = vec![recorded];
    known.extend(wake.disk_bytes_per_second.map(|speed| format!("disk {}/s", units::bytes(speed))));
    format!(
        "about {} for {what} ({}); {}",
        units::seconds(wake.estimate_ms),
        known.join("; "),
        if wake.headroom_reserved { "headroom reserved" } else { "no headroom reserved: the node is full" }
    )
}

fn last_wake(wake: &LastWake, clock: &Clock) -> Vec<String> {
    let by = wake.from.as_ref().map(|from| format!(" by {from}")).unwrap_or_default();
    let first = format!("{}{by}, {}, from {}", clock.time_ms(wake.at_ms), wake.what, stage(wake.from_stage));
    let again = wake.retransmissions.map(|number| count(number.into(), "retransmission", "retransmissions"));
    let second: Vec<_> =
        Some(phases(&wake.phases)).filter(|shown| !shown.is_empty()).into_iter().chain(again).collect();
    let mut lines = vec![first];
    if !second.is_empty() {
        lines.push(second.join("; "));
    }
    lines
}

#[cfg(test)]
mod tests {
    use dormouse_api::command::Phases;
    use dormouse_api::event::Class;
    use dormouse_api::profile::Layer;
    use dormouse_api::status::HandedBack;
    use dormouse_api::why::Deciding;
    use jiff::tz::TimeZone;

    use super::*;

    /// 2026-11-18 at this time, UTC.
    const fn at(hour: u64, minute: u64, second: u64) -> u64 {
        1_794_960_000_000 + (hour * 3600 + minute * 60 + second) * 1000
    }

    const MIB: u64 = 1 << 20;

    fn sleeper() -> Why {
        let limit = |key: &str, value: &str, layer| Deciding { key: key.into(), value: value.into(), layer };
        Why {
            server: "acme/creative".into(),
            profile: "minecraft-java".into(),
            cgroup: "/games/creative".into(),
            mode: Mode::Full,
            stage: Stage::Deep,
            since_at_ms: at(13, 14, 7),
            now_at_ms: at(22, 16, 9),
            last_player_at_ms: Some(at(13, 4, 2)),
            kept: None,
            limits: vec![
                limit("doze_after", "10m", Layer::Profile),
                limit("deep_after", "0s", Layer::Override),
            ],
            reasons: vec![],
            save: Some(Save::Saved { at_ms: at(13, 14, 5), by: "RCON save-all".into(), took_ms: Some(1100) }),
            watchdog: Some("off (max-tick-time=-1)".into()),
            memory: Some(SleeperMemory {
                handed_back: HandedBack { bytes: 5837 * MIB, estimated: false },
                size_bytes: 6144 * MIB,
                current_bytes: Some(311 * MIB),
                swap_written_bytes: 1946 * MIB,
            }),
            refused: Refused {
                pings: 23,
                pings_answered: 23,
                probes: 4,
                scans: 61,
                scan_addresses: 14,
                false_wakes: 0,
            },
            next_wake: Some(NextWake::Deep(DeepWake {
                estimate_ms: 240,
                working_set_bytes: 1126 * MIB,
                wakes_recorded: 6,
                disk_bytes_per_second: Some(4710 * MIB),
                headroom_reserved: true,
            })),
            deep_wake: None,
            last_wake: Some(LastWake {
                at_ms: at(10, 31, 12) + 402,
                from: Some("203.0.113.7:53122".into()),
                class: Some(Class::Player),
                what: "Minecraft login".into(),
                from_stage: Stage::Deep,
                phases: Phases {
                    decided_ns: Some(100_000),
                    thawed_ns: Some(400_000),
                    first_answer_ns: Some(31_000_000),
                    working_set_ns: Some(238_000_000),
                },
                retransmissions: Some(0),
            }),
        }
    }

    #[test]
    fn a_deep_sleeper() {
        let sleeper = sleeper();
        let clock = Clock { now_ms: sleeper.now_at_ms, zone: TimeZone::UTC };
        assert_eq!(
            why(&sleeper, &clock),
            "\
acme/creative  cgroup /games/creative  deep since 13:14:07 (9h02m)
Why asleep   last player packet 13:04:02; doze_after 10m (profile), deep_after 0s (override)
             world saved 13:14:05 (RCON save-all, 1.1 s); watchdog off (max-tick-time=-1)
Handed back  5.7 of 6.0 GiB (memory.current 311 MiB); 1.9 GiB written to swap this sleep
Refused      23 status pings (answered), 4 probes, 61 scans from 14 addresses: 0 wakes
Next wake    about 0.24 s for a 1.1 GiB working set (6 wakes recorded; disk 4.6 GiB/s); headroom reserved
Last wake    10:31:12.402 by 203.0.113.7:53122, Minecraft login, from deep
             decided +0.1 ms  thawed +0.4  first answer +31  working set back +238; 0 retransmissions
"
        );
    }

    #[test]
    fn nothing_is_lost_on_the_wire() {
        let mut why = sleeper();
        for save in [None, Some(Save::NotNeeded { reason: "rounds only".into() }), why.save.clone()] {
            why.save = save;
            there_and_back(&why);
        }
        for next_wake in [NextWake::Dozing { last_answer_ns: Some(7) }, unknown()] {
            why.next_wake = Some(next_wake);
            there_and_back(&why);
        }
    }

    fn there_and_back(why: &Why) {
        let json = serde_json::to_string(why).unwrap();
        assert_eq!(serde_json::from_str::<Why>(&json).unwrap(), *why);
    }

    fn unknown() -> NextWake {
        NextWake::Unknown { reason: "the device is being measured".into() }
    }

    #[test]
    fn a_server_that_never_slept() {
        let awake = Why {
            mode: Mode::Observe,
            stage: Stage::Awake,
            last_player_at_ms: None,
            limits: vec![],
            reasons: vec!["an outbound link to 192.0.2.1:5432 is open (outbound-link)\nforged".into()],
            save: Some(Save::Missing { reason: "no save hook".into() }),
            watchdog: None,
            memory: None,
            refused: Refused::default(),
            next_wake: None,
            deep_wake: Some(DeepWake {
                estimate_ms: 60,
                working_set_bytes: 256 * MIB,
                wakes_recorded: 0,
                disk_bytes_per_second: Some(4710 * MIB),
                headroom_reserved: true,
            }),
            last_wake: None,
            ..sleeper()
        };
        let clock = Clock { now_ms: awake.now_at_ms, zone: TimeZone::UTC };
        assert_eq!(
            why(&awake, &clock),
            "\
acme/creative  cgroup /games/creative  awake since 13:14:07 (9h02m)  mode observe: nothing is touched
Why awake    an outbound link to 192.0.2.1:5432 is open (outbound-link) forged
             no player packet yet
             no save evidence (no save hook)
From deep    about 0.06 s for 256 MiB at most (no wake recorded yet; disk 4.6 GiB/s); headroom reserved
"
        );
    }

    #[test]
    fn estimates_and_gaps_are_said() {
        let back = HandedBack { bytes: 40 * MIB, estimated: true };
        let estimated = SleeperMemory {
            handed_back: back,
            size_bytes: 58 * MIB,
            current_bytes: None,
            swap_written_bytes: 0,
        };
        assert_eq!(memory(&estimated), "about 40 of 58 MiB (estimated from the node's free memory)");
        assert_eq!(next_wake(&unknown()), "unknown: the device is being measured");
        assert_eq!(
            next_wake(&NextWake::Dozing { last_answer_ns: Some(1_840_000) }),
            "about 1.8 ms to the first answer, as the last time: its memory is resident"
        );
        assert_eq!(refused(&Refused::default()), "nobody came: 0 wakes");
        let some = Refused { pings: 2, pings_answered: 1, scans: 1, scan_addresses: 1, ..Refused::default() };
        assert_eq!(refused(&some), "2 status pings (1 answered), 1 scan from 1 address: 0 wakes");
    }
}
