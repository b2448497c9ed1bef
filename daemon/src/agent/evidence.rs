//! What is asked of a server before a doze and after a wake: evidence, hooks, the canary.

use std::sync::Arc;

use dormouse_api::why;
use dormouse_packet::headers::TCP;

use super::{
    Agent, Message,
    clock::{boot_from_monotonic, unix_from_boot_ms},
    managed::Managed,
    orders::Done,
};
use crate::{
    config::{PortSpec, Transport},
    discover::{
        link::{self, HostEnd},
        sockets,
    },
    evidence::{
        self, EvidenceDetails, SaveDetails,
        canary::{Canary, GRACE, Outcome},
        hooks::{self, Moment},
    },
    netns::NamespaceSockets,
    sleep::Sleeper,
    stage::{Evidence, Obstacle},
};

/// Evidence, with its texts for `why`.
pub struct Gathered {
    pub evidence: Evidence,
    pub save: Option<why::Save>,
    pub watchdog: Option<String>,
    /// Packets were seen to miss the door.
    pub obstacle: Option<Obstacle>,
}

impl Agent {
    pub(super) fn gather(&mut self, name: &str, run_hook: bool) {
        let Some(managed) = self.servers.get(name) else { return };
        let Some(here) = managed.here() else { return };
        let (server, found) = (Arc::clone(&managed.config), here.brought.found.clone());
        let sleeper = Arc::clone(&here.brought.sleeper);
        let host_ends = here.brought.host_ends.clone();
        let player_ns = &self.place.node.arrays.state(sleeper.slot).last_player_ns;
        let last_player = boot_from_monotonic(player_ns.load(std::sync::atomic::Ordering::SeqCst));
        let (generation, outbox) = (managed.generation, self.outbox.clone());
        let errands = Arc::clone(&self.place.errands);
        tokio::spawn(async move {
            let pids = found.pids.clone();
            let turn = errands.acquire_owned().await;
            let listed = tokio::task::spawn_blocking(move || {
                let all = sleeper.list_sockets().unwrap_or_default();
                let own = sockets::inodes(&pids).map(|own| all.clone().owned_by(&own)).unwrap_or(all);
                (own, past_the_door(&sleeper, &host_ends))
            });
            let (own, obstacle) = listed.await.unwrap_or_default();
            drop(turn);
            let (evidence, details) = evidence::gather(&server, &found, &own, last_player, run_hook).await;
            let gathered = Gathered {
                evidence,
                save: Some(told_save(&details)),
                watchdog: Some(details.watchdog),
                obstacle,
            };
            let done = Done::Evidence(gathered);
            let _ = outbox.send(Message::Done { server: server.name().to_owned(), generation, done });
        });
    }

    pub(super) fn after_wake(&self, name: &str) {
        let Some(managed) = self.servers.get(name) else { return };
        let server = Arc::clone(&managed.config);
        if server.file.hooks.after_wake.is_none() {
            return;
        }
        tokio::spawn(async move {
            let Some(hook) = &server.file.hooks.after_wake else { return };
            if let Err(error) = hooks::run(hook, server.name(), Moment::AfterWake).await {
                tracing::error!(server = server.name(), %error, "the after_wake hook failed");
            }
        });
    }

    /// Watches a woken server; never for longer than it must stay awake in any case.
    pub(super) fn canary(&self, name: &str) {
        let Some(managed) = self.servers.get(name) else { return };
        let Some(here) = managed.here() else { return };
        let server = Arc::clone(&managed.config);
        let sleeper = Arc::clone(&here.brought.sleeper);
        let (main, address) = (here.brought.found.main, here.brought.address);
        let ports = port_specs(managed);
        let (generation, outbox) = (managed.generation, self.outbox.clone());
        tokio::spawn(async move {
            let grace = GRACE.min(server.limits.min_awake);
            let canary = Canary { server: &server, main, ports: &ports, address, grace, patience: GRACE };
            let outcome = match canary.watch(move || sleeper.list_sockets()).await {
                Outcome::Ok => Ok(()),
                Outcome::Failed { reason } => Err(reason),
            };
            let done = Done::Canary(outcome);
            let _ = outbox.send(Message::Done { server: server.name().to_owned(), generation, done });
        });
    }
}

/// Looked at before each doze: the proof of the path is a datagram of the node's own, and there are networks that treat
/// players otherwise.
fn past_the_door(sleeper: &Sleeper, ends: &[HostEnd]) -> Option<Obstacle> {
    let mut own = NamespaceSockets::own().ok()?;
    let missed = ends.iter().find_map(|end| {
        let looked = sleeper.ask_routes(|inside| link::past_the_door(inside, &mut own.route, end));
        looked.unwrap_or_else(|error| {
            tracing::warn!(server = %sleeper.name, %error, "what its veth has counted can't be read");
            None
        })
    })?;
    Some(Obstacle { code: "door-not-on-path", text: format!("DoorNotOnPath: {missed}") })
}

fn port_specs(managed: &Managed) -> Vec<PortSpec> {
    let ports = managed.here().map(|here| here.brought.ports.as_slice()).unwrap_or_default();
    let transport = |protocol| if protocol == TCP { Transport::Tcp } else { Transport::Udp };
    ports.iter().map(|port| PortSpec { transport: transport(port.protocol), port: port.number }).collect()
}

fn told_save(details: &EvidenceDetails) -> why::Save {
    match &details.save {
        SaveDetails::Saved { at, by, took } => why::Save::Saved {
            at_ms: unix_from_boot_ms(*at),
            by: by.clone(),
            took_ms: Some(took.as_millis() as u64),
        },
        SaveDetails::NotNeeded { reason } => why::Save::NotNeeded { reason: reason.clone() },
        SaveDetails::Missing { reason } => why::Save::Missing { reason: reason.clone() },
    }
}
