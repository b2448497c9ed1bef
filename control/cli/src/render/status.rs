//! `dormouse status`.

use dormouse_api::status::{Guard, Mode, NodeStatus, ServerStatus, Stage, Status};

use super::table::table;
use super::{kept, stage};
use crate::units::{self, Clock, Unit, count};

const HEADS: [&str; 8] =
    ["SERVER", "PROFILE", "STAGE", "FOR", "FLOWS", "RESIDENT/SIZE", "LAST PLAYER", "NOTE"];

pub fn status(status: &Status, clock: &Clock) -> String {
    let rows: Vec<_> = status.servers.iter().map(|server| row(server, clock)).collect();
    let head = node(&status.node);
    if rows.is_empty() { format!("{head}\n") } else { format!("{head}\n{}", table(HEADS, &rows)) }
}

fn node(node: &NodeStatus) -> String {
    let all = u64::from(node.awake) + u64::from(node.dozing) + u64::from(node.deep) + u64::from(node.waking);
    let waking = if node.waking > 0 { format!(" {} waking", node.waking) } else { String::new() };
    let unit = Unit::of(node.total_bytes);
    let about = if node.handed_back.estimated { "about " } else { "" };
    let short = match node.short_bytes {
        0 => String::new(),
        bytes => format!("   {} MISSING to the headroom: no more servers here", units::bytes(bytes)),
    };
    let writes = node.deep_writes.map_or_else(String::new, |writes| {
        let (today, budget) = (units::bytes(writes.today_bytes), units::bytes(writes.budget_bytes));
        format!("   {today} of {budget} written to swap today")
    });
    let off = if node.off { "   OFF until `dormouse on`" } else { "" };
    let guard = match node.guard {
        Guard::Ok => "ok",
        Guard::Absent => "absent (systemctl start dormouse-guard)",
        Guard::Stale => "stale (journalctl -u dormouse-guard)",
    };
    format!(
        "{}  {}: {} awake {} dozing {} deep{waking} ({} kept)   \
         memory: servers {} + headroom {} of {} {}   handed back {about}{}   guard {guard}{writes}{short}{off}",
        node.name,
        count(all, "server", "servers"),
        node.awake,
        node.dozing,
        node.deep,
        node.kept,
        unit.count(node.servers_bytes),
        unit.count(node.headroom_bytes),
        unit.count(node.total_bytes),
        unit.name,
        units::bytes(node.handed_back.bytes),
    )
}

fn row(server: &ServerStatus, clock: &Clock) -> [String; 8] {
    let unit = Unit::of(server.size_bytes.max(server.resident_bytes));
    let last_player = match server.last_player_at_ms {
        _ if server.flows > 0 => "now".to_owned(),
        Some(at_ms) => format!("{} ago", clock.since(at_ms)),
        None => "never".to_owned(),
    };
    [
        server.name.clone(),
        server.profile.clone(),
        stage(server.stage).to_owned(),
        clock.since(server.since_at_ms),
        server.flows.to_string(),
        format!("{} / {} {}", unit.count(server.resident_bytes), unit.count(server.size_bytes), unit.name),
        last_player,
        note(server, clock),
    ]
}

fn note(server: &ServerStatus, clock: &Clock) -> String {
    let mut notes = Vec::new();
    if server.mode == Mode::Observe {
        notes.push("observe".to_owned());
    }
    notes.extend(server.kept.as_ref().map(|one| kept(one, clock)));
    notes.extend(server.note.as_ref().map(|note| format!("{note} (why {})", server.name)));
    if server.stage == Stage::Deep {
        notes.extend(
            server.deep_wake.map(|wake| format!("wakes in about {}", units::seconds(wake.estimate_ms))),
        );
    }
    let mut came = Vec::new();
    if server.pings_answered > 0 {
        came.push(format!("{} answered", count(server.pings_answered, "ping", "pings")));
    }
    if server.scans_refused > 0 {
        came.push(format!("{} refused", count(server.scans_refused, "scan", "scans")));
    }
    if !came.is_empty() {
        notes.push(came.join(", "));
    }
    notes.join("; ")
}

#[cfg(test)]
mod tests {
    use dormouse_api::status::{HandedBack, Kept};
    use jiff::tz::TimeZone;

    use super::*;

    const MINUTE: u64 = 60_000;
    const NOW: u64 = 1_795_000_000_000; // 2026-11-18 11:06:40
    const MIB: u64 = 1 << 20;

    fn server(name: &str, stage: Stage, minutes: u64, resident: u64, size: u64) -> ServerStatus {
        ServerStatus {
            name: name.into(),
            profile: "minecraft-java".into(),
            mode: Mode::Full,
            stage,
            since_at_ms: NOW - minutes * MINUTE,
            flows: 0,
            resident_bytes: resident * MIB,
            size_bytes: size * MIB,
            last_player_at_ms: None,
            kept: None,
            note: None,
            pings_answered: 0,
            scans_refused: 0,
            deep_wake: None,
        }
    }

    fn node() -> NodeStatus {
        NodeStatus {
            name: "fra-1".into(),
            now_at_ms: NOW,
            awake: 10,
            dozing: 6,
            deep: 30,
            waking: 0,
            kept: 1,
            servers_bytes: 103_629 * MIB,
            headroom_bytes: 12_288 * MIB,
            short_bytes: 0,
            deep_writes: None,
            total_bytes: 128_614 * MIB,
            handed_back: HandedBack { bytes: 134_963 * MIB, estimated: false },
            guard: Guard::Ok,
            off: false,
        }
    }

    #[test]
    fn a_busy_node() {
        let survival = ServerStatus {
            flows: 3,
            last_player_at_ms: Some(NOW),
            ..server("acme/survival", Stage::Awake, 134, 6246, 6246)
        };
        let creative = ServerStatus {
            last_player_at_ms: Some(NOW - 552 * MINUTE),
            pings_answered: 23,
            scans_refused: 61,
            ..server("acme/creative", Stage::Deep, 542, 307, 6144)
        };
        let modded = ServerStatus {
            last_player_at_ms: Some(NOW - 52 * MINUTE),
            note: Some("throttled: max-tick-time=60000".into()),
            ..server("core/modded", Stage::Dozing, 31, 8397, 8397)
        };
        let event = ServerStatus {
            last_player_at_ms: Some(NOW - 60 * MINUTE),
            kept: Some(Kept {
                owner: "anna".into(),
                reason: "LAN party".into(),
                until_at_ms: NOW + 414 * MINUTE,
            }),
            ..server("core/event", Stage::Awake, 40, 4506, 4506)
        };
        let fresh = ServerStatus {
            mode: Mode::Observe,
            profile: "luanti".into(),
            ..server("fun/new", Stage::Awake, 0, 58, 58)
        };
        let whole = Status { node: node(), servers: vec![survival, creative, modded, event, fresh] };
        let clock = Clock { now_ms: NOW, zone: TimeZone::UTC };
        assert_eq!(
            status(&whole, &clock),
            "\
fra-1  46 servers: 10 awake 6 dozing 30 deep (1 kept)   memory: servers 101.2 + headroom 12.0 of 125.6 GiB   handed back 131.8 GiB   guard ok
SERVER         PROFILE         STAGE   FOR    FLOWS  RESIDENT/SIZE  LAST PLAYER  NOTE
acme/survival  minecraft-java  awake   2h14m  3      6.1 / 6.1 GiB  now
acme/creative  minecraft-java  deep    9h02m  0      0.3 / 6.0 GiB  9h12m ago    23 pings answered, 61 scans refused
core/modded    minecraft-java  dozing  31m    0      8.2 / 8.2 GiB  52m ago      throttled: max-tick-time=60000 (why core/modded)
core/event     minecraft-java  awake   40m    0      4.4 / 4.4 GiB  1h00m ago    kept by anna until 18:00, \"LAN party\"
fun/new        luanti          awake   0s     0      58 / 58 MiB    never        observe
"
        );
    }

    #[test]
    fn a_node_without_servers_and_guard() {
        let node = NodeStatus {
            awake: 0,
            dozing: 0,
            deep: 0,
            waking: 1,
            kept: 0,
            guard: Guard::Absent,
            off: true,
            handed_back: HandedBack { bytes: 57 * MIB, estimated: true },
            ..node()
        };
        let clock = Clock { now_ms: NOW, zone: TimeZone::UTC };
        assert_eq!(
            status(&Status { node, servers: vec![] }, &clock),
            "\
fra-1  1 server: 0 awake 0 dozing 0 deep 1 waking (0 kept)   memory: servers 101.2 + headroom 12.0 of 125.6 GiB   handed back about 57 MiB   guard absent (systemctl start dormouse-guard)   OFF until `dormouse on`
"
        );
    }
}
