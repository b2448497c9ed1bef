//! What an operator reads: `status` and `why`.

use std::{collections::BTreeMap, time::Duration};

use dormouse_abi::server::Counters;
use dormouse_api::{
    profile,
    status::{Guard, HandedBack, Kept, Mode, NodeStatus, ServerStatus, Stage as ToldStage},
    why::{Deciding, DeepWake, NextWake, Refused, SleeperMemory, Why},
};
use dormouse_packet::Class;

use super::{
    Agent,
    clock::{unix_from_boot_ms, unix_now_ms},
    managed::{Managed, Presence},
    orders::memory_of,
};
use crate::{
    config,
    door::monotonic_ns,
    limits,
    memory::{group::Group, regions::Skip},
    stage::{Next, Reason, Refusal, Stage},
};

/// A flow that was silent for longer does not count.
const FLOW_WINDOW: Duration = Duration::from_mins(1);

impl Agent {
    pub(super) fn node_status(&self, servers: &[ServerStatus]) -> NodeStatus {
        let count = |stage| self.servers.values().filter(|m| told_stage(m.stage()) == stage).count() as u32;
        let kept = |managed: &&Managed| managed.here().is_some_and(|here| here.machine.why().kept.is_some());
        let handed = |managed: &Managed| managed.history.handed_back;
        NodeStatus {
            name: node_name(),
            off: self.off,
            now_at_ms: unix_now_ms(),
            awake: count(ToldStage::Awake),
            dozing: count(ToldStage::Dozing),
            deep: count(ToldStage::Deep),
            waking: count(ToldStage::Waking),
            kept: self.servers.values().filter(kept).count() as u32,
            servers_bytes: servers.iter().map(|server| server.resident_bytes).sum(),
            headroom_bytes: self.pool.headroom,
            short_bytes: self.pool.short(),
            deep_writes: self.deep_writes(),
            total_bytes: total_memory(),
            handed_back: HandedBack {
                bytes: self.servers.values().filter_map(handed).map(|h| h.bytes).sum(),
                estimated: self.servers.values().filter_map(handed).any(|h| h.estimated),
            },
            guard: self.guard_state(),
        }
    }

    fn guard_state(&self) -> Guard {
        if crate::guard::is_running(&self.paths) { Guard::Ok } else { Guard::Absent }
    }

    /// Player flows of the last minute, by slot.
    pub(super) fn flows(&self) -> BTreeMap<u32, u32> {
        let now = monotonic_ns();
        let mut flows = BTreeMap::new();
        for (key, flow) in self.place.node.door().flows() {
            let recent = now.saturating_sub(flow.last_ns) < FLOW_WINDOW.as_nanos() as u64;
            if recent && flow.class == Class::Player as u8 {
                *flows.entry(key.slot).or_insert(0) += 1;
            }
        }
        flows
    }

    fn since_stage(&self, managed: &Managed) -> Counters {
        let now = self.place.node.door().counters(managed.slot).unwrap_or_default();
        let then = managed.history.counters_then;
        Counters {
            query: now.query.saturating_sub(then.query),
            noise: now.noise.saturating_sub(then.noise),
            probe: now.probe.saturating_sub(then.probe),
            ..now
        }
    }

    pub(super) fn server_status(&self, managed: &Managed, flows: u32) -> ServerStatus {
        let (resident, size) = memory(managed);
        let counted = self.since_stage(managed);
        let why = managed.here().map(|here| here.machine.why());
        ServerStatus {
            name: managed.config.name().to_owned(),
            profile: managed.config.profile.name.clone(),
            mode: told_mode(managed.config.file.mode),
            stage: told_stage(managed.stage()),
            since_at_ms: why.as_ref().map_or_else(unix_now_ms, |why| unix_from_boot_ms(why.since)),
            flows,
            resident_bytes: resident,
            size_bytes: size,
            last_player_at_ms: why.as_ref().and_then(|why| why.last_player).map(unix_from_boot_ms),
            kept: why.as_ref().and_then(|why| why.kept.as_ref()).map(told_kept),
            note: note(managed),
            pings_answered: answered(managed, &counted),
            scans_refused: counted.noise,
            deep_wake: self.deep_wake(managed, size).and_then(Result::ok),
        }
    }

    pub(super) fn why(&self, managed: &Managed) -> Why {
        let server = &managed.config;
        let why = managed.here().map(|here| here.machine.why());
        let counted = self.since_stage(managed);
        let (_, size_bytes) = memory(managed);
        let deep = self.deep_wake(managed, size_bytes);
        Why {
            server: server.name().to_owned(),
            profile: server.profile.name.clone(),
            cgroup: managed.here().map_or_else(
                || server.file.select.to_string(),
                |here| relative(&here.brought.found.cgroup, &self.place.root.path),
            ),
            mode: told_mode(server.file.mode),
            stage: told_stage(managed.stage()),
            since_at_ms: why.as_ref().map_or_else(unix_now_ms, |why| unix_from_boot_ms(why.since)),
            now_at_ms: unix_now_ms(),
            last_player_at_ms: why.as_ref().and_then(|why| why.last_player).map(unix_from_boot_ms),
            kept: why.as_ref().and_then(|why| why.kept.as_ref()).map(told_kept),
            limits: deciding(server),
            reasons: reasons(managed),
            save: managed.history.save.clone(),
            watchdog: managed.history.watchdog.clone(),
            memory: managed.history.handed_back.map(|handed| SleeperMemory {
                handed_back: HandedBack { bytes: handed.bytes, estimated: handed.estimated },
                size_bytes,
                current_bytes: managed
                    .here()
                    .and_then(|here| Group::new(here.brought.found.cgroup.clone()).current().ok()),
                swap_written_bytes: handed.written_bytes,
            }),
            refused: Refused {
                pings: counted.query,
                pings_answered: answered(managed, &counted),
                probes: counted.probe,
                scans: counted.noise,
                scan_addresses: managed.history.scan_addresses.len() as u64,
                false_wakes: 0,
            },
            deep_wake: deep.clone().and_then(Result::ok),
            next_wake: next_wake(managed, deep),
            last_wake: managed.history.last_wake.clone(),
        }
    }
}

fn next_wake(managed: &Managed, deep: Option<Result<DeepWake, String>>) -> Option<NextWake> {
    match managed.stage() {
        Stage::Awake | Stage::Waking => None,
        Stage::Dozing { .. } => {
            let last = managed.history.last_wake.as_ref();
            let dozing = last.filter(|wake| wake.from_stage == ToldStage::Dozing);
            Some(NextWake::Dozing { last_answer_ns: dozing.and_then(|wake| wake.phases.first_answer_ns) })
        }
        Stage::Deep { .. } => Some(match deep {
            Some(Ok(wake)) => NextWake::Deep(wake),
            Some(Err(reason)) => NextWake::Unknown { reason },
            None => NextWake::Unknown { reason: "its limits have just changed".to_owned() },
        }),
    }
}

/// Queries that reached the server: each is given to it in a short thaw, or comes to nothing in the queue.
fn answered(managed: &Managed, counted: &Counters) -> u64 {
    counted.query.saturating_sub(managed.expired().saturating_sub(managed.history.expired_then))
}

/// Resident bytes, and what it holds awake. A deep sleeper's RSS says nothing: its size is what was measured
/// before.
pub(super) fn memory(managed: &Managed) -> (u64, u64) {
    let Some(here) = managed.here() else { return (0, 0) };
    if let Some(handed) = managed.history.handed_back {
        (managed.history.size_bytes.saturating_sub(handed.bytes), managed.history.size_bytes)
    } else {
        let now = memory_of(&here.brought.found.cgroup);
        (now.anonymous, now.anonymous + now.swapped)
    }
}

fn note(managed: &Managed) -> Option<String> {
    match &managed.presence {
        Presence::Looking => Some("being looked for".to_owned()),
        Presence::Absent { reason, .. } => Some(reason.clone()),
        Presence::Here(here) => {
            if let Some(paper) = &managed.history.paper {
                return Some(paper.clone());
            }
            match here.machine.why().reason {
                Reason::StaysAwake(refusal) => match refusal.code() {
                    "not-idle" | "observe" | "not-observed" => None,
                    _ => Some(refusal.to_string()),
                },
                Reason::Asleep {
                    not_deeper: Some(refusal @ (Refusal::Obstacle(_) | Refusal::DeepFailed { .. })),
                    ..
                } => Some(format!("not deeper: {refusal}")),
                Reason::Asleep { throttled: Some(why), .. } => Some(format!("throttled: {why}")),
                _ => None,
            }
        }
    }
}

fn reasons(managed: &Managed) -> Vec<String> {
    let Presence::Here(here) = &managed.presence else { return note(managed).into_iter().collect() };
    let why = here.machine.why();
    let mut reasons = vec![why.reason.to_string()];
    if let Reason::Asleep { not_deeper: Some(refusal), .. } = &why.reason {
        reasons.push(format!("not deeper: {refusal}"));
    }
    match why.next {
        Some(Next::Doze { at }) => reasons.push(format!("dozes {}", ahead(at))),
        Some(Next::Deep { at }) => reasons.push(format!("goes deep {}", ahead(at))),
        Some(Next::WakeAgain { at }) => reasons.push(format!("is woken again {}", ahead(at))),
        None => {}
    }
    reasons.extend(left_alone(managed));
    if let Some(demotion) = why.demotion {
        reasons.push(format!("demoted: {}; {}", demotion.reason, demotion.cure));
    }
    reasons.extend(managed.history.paper.clone());
    reasons
}

/// What a deep sleeper keeps in memory although it does nothing, if it is worth a word.
fn left_alone(managed: &Managed) -> Option<String> {
    const WORTH: u64 = 1 << 20;
    managed.history.handed_back?;
    let parts: Vec<String> = managed
        .history
        .left_alone
        .iter()
        .filter(|(skip, bytes)| **skip != Skip::File && **bytes >= WORTH)
        .map(|(skip, bytes)| format!("{} MiB {skip}", bytes >> 20))
        .collect();
    (!parts.is_empty()).then(|| format!("stays resident: {}", parts.join(", ")))
}

fn ahead(at: Duration) -> String {
    let left = at.saturating_sub(super::clock::boot_now());
    if left.is_zero() {
        return "at the next look".to_owned();
    }
    format!("in {}", humantime::format_duration(Duration::from_secs(left.as_secs().max(1))))
}

fn deciding(server: &config::Server) -> Vec<Deciding> {
    config::explain(&server.layers)
        .into_iter()
        .filter(|explained| ["doze_after", "deep_after", "floor", "doze_by"].contains(&explained.key))
        .filter_map(|explained| {
            let winner = explained.winner()?;
            Some(Deciding {
                key: explained.key.to_owned(),
                value: winner.value.clone(),
                layer: told_layer(winner.layer),
            })
        })
        .collect()
}

pub fn told_layer(layer: config::Layer) -> profile::Layer {
    match layer {
        config::Layer::BuiltIn => profile::Layer::BuiltIn,
        config::Layer::Profile => profile::Layer::Profile,
        config::Layer::Server => profile::Layer::Server,
        config::Layer::Override => profile::Layer::Override,
    }
}

fn told_kept(kept: &crate::stage::Kept) -> Kept {
    Kept {
        owner: kept.owner.clone(),
        reason: kept.reason.clone(),
        until_at_ms: kept.until.map_or(u64::MAX, unix_from_boot_ms),
    }
}

pub fn told_stage(stage: Stage) -> ToldStage {
    match stage {
        Stage::Awake => ToldStage::Awake,
        Stage::Dozing { .. } => ToldStage::Dozing,
        Stage::Deep { .. } => ToldStage::Deep,
        Stage::Waking => ToldStage::Waking,
    }
}

fn told_mode(mode: limits::Mode) -> Mode {
    match mode {
        limits::Mode::Observe => Mode::Observe,
        limits::Mode::Doze => Mode::Doze,
        limits::Mode::Full => Mode::Full,
    }
}

fn relative(cgroup: &std::path::Path, root: &std::path::Path) -> String {
    cgroup
        .strip_prefix(root)
        .map_or_else(|_| cgroup.display().to_string(), |rest| format!("/{}", rest.display()))
}

/// The machine's host name.
pub fn node_name() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn total_memory() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib =
        info.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().split(' ').next()?.parse().ok());
    kib.unwrap_or(0u64) * 1024
}
