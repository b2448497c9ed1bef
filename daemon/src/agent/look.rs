//! Looking at servers: is it there, is it still the same, what does its machine need to know?

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Instant,
};

use dormouse_abi::gate;
use dormouse_api::event::EventKind;
use dormouse_packet::Class;

use super::{
    Agent, BringUpError, Brought, Message,
    bring_up::{Port, Wanted},
    clock::{boot_from_monotonic, boot_now, unix_now_ms},
    managed::{Here, Managed, Presence},
    saved,
};
use crate::{
    config::Transport,
    discover::{link::HostEnd, process},
    limits::{Mode, Reaction},
    sleep::Manners,
    stage::{AcceptQueue, Event, Machine, Observation, Obstacle, Setup, Stage},
};

impl Managed {
    /// When something is to be done about it without anybody asking.
    pub fn due(&self) -> Instant {
        match &self.presence {
            Presence::Absent { again, .. } => *again,
            Presence::Here(here) => match here.look_at_road {
                Some(road) if here.machine.stage() == Stage::Awake => road.min(self.next_look),
                _ => self.next_look,
            },
            Presence::Looking => Instant::now() + std::time::Duration::from_mins(1),
        }
    }

    fn manners(&self) -> Manners {
        let limits = &self.config.limits;
        Manners {
            first_speaker: limits.first_speaker,
            patience: limits.patience,
            query_thaw: limits.query_thaw,
        }
    }

    /// Gives changed settings to the watch.
    pub fn apply_manners(&self) {
        if let Some(here) = self.here() {
            let mut manners =
                here.brought.sleeper.manners.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            *manners = self.manners();
        }
    }

    fn wanted(&self) -> Wanted {
        let server = &self.config;
        let ports = if server.file.ports.is_empty() {
            server.profile.ports.clone()
        } else {
            server.file.ports.iter().map(|port| port.port).collect()
        };
        let ports = ports
            .into_iter()
            .map(|port| Port {
                number: port.port,
                protocol: match port.transport {
                    Transport::Tcp => dormouse_packet::headers::TCP,
                    Transport::Udp => dormouse_packet::headers::UDP,
                },
                game: server.game(port) as u8,
            })
            .collect();
        Wanted {
            name: Arc::from(server.name()),
            slot: self.slot,
            selector: server.file.select.clone(),
            ports,
            game: server.profile.protocol,
            manners: self.manners(),
            old_links_wake: server.limits.old_links == Reaction::Wake,
            loopback_wakes: server.limits.loopback == Reaction::Wake,
            adopt: false,
        }
    }
}

impl Agent {
    pub(super) fn look_at_due(&mut self) {
        let now = Instant::now();
        let due: Vec<String> =
            self.servers.iter().filter(|(_, m)| m.due() <= now).map(|(name, _)| name.clone()).collect();
        for name in due {
            match self.servers.get(&name).map(|managed| &managed.presence) {
                Some(Presence::Absent { .. }) => self.look_for(&name),
                Some(Presence::Here(_)) => self.look_at(&name),
                _ => {}
            }
        }
    }

    fn look_for(&mut self, name: &str) {
        let Some(managed) = self.servers.get_mut(name) else { return };
        let adopt = self.records.get(name).is_some_and(|record| record.saved.stage.by().is_some());
        let wanted = Wanted { adopt, ..managed.wanted() };
        managed.presence = Presence::Looking;
        managed.generation += 1;
        let (generation, server) = (managed.generation, name.to_owned());
        let (place, outbox) = (Arc::clone(&self.place), self.outbox.clone());
        self.errand(move || {
            let outcome = place.bring_up(&wanted).map(Box::new);
            let _ = outbox.send(Message::Brought { server, generation, outcome });
        });
    }

    /// Runs what blocks and nobody waits for, in its turn.
    pub(super) fn errand(&self, work: impl FnOnce() + Send + 'static) {
        let errands = Arc::clone(&self.place.errands);
        tokio::spawn(async move {
            // It is never closed.
            let turn = errands.acquire_owned().await;
            tokio::task::spawn_blocking(move || {
                work();
                drop(turn);
            });
        });
    }

    pub(super) fn brought(
        &mut self,
        name: &str,
        generation: u64,
        outcome: Result<Box<Brought>, BringUpError>,
    ) {
        let Some(managed) = self.servers.get_mut(name).filter(|managed| managed.generation == generation)
        else {
            if let Ok(brought) = outcome {
                self.place.take_down(&brought);
            }
            return;
        };
        let brought = match outcome {
            Ok(brought) => brought,
            Err(error) => {
                let reason = format!("{:#}", anyhow::Error::from(error));
                tracing::info!(server = name, reason, "not there");
                managed.absent(reason);
                // It was woken if it slept: nothing of an earlier daemon is left to be adopted.
                self.records.remove(name);
                return saved::forget(&self.config.run_dir, name);
            }
        };
        if let Some(obstacle) = &brought.obstacle {
            tracing::warn!(server = name, "it stays awake: {}", obstacle.text);
        }
        let setup = Setup {
            mode: managed.config.file.mode,
            limits: managed.config.limits.clone(),
            spoofable: brought
                .ports
                .iter()
                .any(|port| dormouse_packet::Game::from_number(port.game).spoofable()),
            started_at: brought.found.main.started(),
            demotion: saved::load_demotion(&self.config.state_dir, name),
        };
        let machine = match self.records.remove(name) {
            Some(record) => Machine::adopted(boot_now(), setup, record.saved),
            None => Machine::new(boot_now(), setup),
        };
        tracing::info!(server = name, cgroup = %brought.found.cgroup.display(), stage = machine.stage().word(), "watched");
        managed.cpu = None;
        let look_at_road = managed.plan_road(brought.obstacle.is_some());
        let end = self.watch_end(name, generation, brought.found.main);
        let Some(managed) = self.servers.get_mut(name) else { return };
        managed.presence = Presence::Here(Box::new(Here { brought: *brought, machine, end, look_at_road }));
        managed.next_look = Instant::now();
        self.metrics.server(name, &managed.config.profile.name, managed.stage());
        self.adopt_memory(name);
        if let Some(managed) = self.servers.get_mut(name)
            && let Some(here) = managed.here()
        {
            managed.history.counters_then =
                self.place.node.door().counters(here.brought.sleeper.slot).unwrap_or_default();
        }
        self.read_size(name);
    }

    /// Another server that claims the same cgroup: neither may freeze it, since the players of each would find it
    /// frozen behind an open gate of their own.
    fn shared_cgroup(&self, name: &str) -> Option<Obstacle> {
        let cgroup = self.servers.get(name)?.here()?.brought.cgroup_id;
        let (other, _) = self.servers.iter().find(|(other, managed)| {
            managed.here().is_some_and(|here| here.brought.cgroup_id == cgroup) && *other != name
        })?;
        Some(Obstacle {
            code: "claimed-twice",
            text: format!(
                "its cgroup belongs to the server {other} too: give each server file its own `select` and `ports`"
            ),
        })
    }

    pub(super) fn look_at(&mut self, name: &str) {
        let Some(managed) = self.servers.get_mut(name) else { return };
        managed.look_at_queue = None;
        let Presence::Here(here) = &managed.presence else { return };
        let alive = !here.brought.main.has_ended();
        let gone = !alive && process::is_empty(&here.brought.found.cgroup).unwrap_or(true);
        let moved = !alive && !gone;
        if gone || moved {
            return self.lost(name, if gone { "its process is gone" } else { "its process was replaced" });
        }
        if !here.brought.host_ends.iter().all(is_there) {
            return self.re_hang(name, "its veth was replaced");
        }
        if here.look_at_road.is_some_and(|at| at <= Instant::now()) && here.machine.stage() == Stage::Awake {
            return self.re_hang(name, "its road missed the door and is looked at again");
        }
        let observation = self.observe(name);
        if let Some(observation) = observation {
            self.feed(name, Event::Observed(observation));
        } else if let Some(managed) = self.servers.get_mut(name) {
            // It is being moved just now.
            managed.plan_next_look();
        }
        self.look_for_answer(name);
    }

    /// The process is gone: the gate opens, the door comes off, and the server is looked for again.
    fn lost(&mut self, name: &str, why: &str) {
        tracing::info!(server = name, "{why}");
        self.books.lose(name, boot_now(), unix_now_ms());
        let was = self.servers.get(name).map(Managed::stage);
        self.feed(name, Event::ServerGone);
        if was.is_some_and(|stage| stage != Stage::Awake) {
            self.tell(
                name,
                EventKind::Crash,
                Some(format!("{why} while it was {}", was.map_or("", Stage::word))),
            );
        }
        let Some(managed) = self.servers.get_mut(name) else { return };
        let absent = Presence::Absent { reason: why.to_owned(), again: Instant::now() };
        let slot = managed.slot;
        if let Presence::Here(here) = std::mem::replace(&mut managed.presence, absent) {
            let place = Arc::clone(&self.place);
            place.node.arrays.set_gate(slot, gate::OPEN);
            let _ = here.brought.sleeper.wake_waiting();
            place.take_down(&here.brought);
        }
        saved::forget(&self.config.run_dir, name);
    }

    /// The road to it is another one: it is woken, and the door is hung anew. Its stage machine goes on.
    fn re_hang(&mut self, name: &str, why: &str) {
        tracing::info!(server = name, "{why}");
        let Some(managed) = self.servers.get_mut(name) else { return };
        let absent = Presence::Absent { reason: why.to_owned(), again: Instant::now() };
        let slot = managed.slot;
        if let Presence::Here(here) = std::mem::replace(&mut managed.presence, absent) {
            let _ = here.brought.sleeper.wake_waiting();
            self.place.take_down(&here.brought);
            let mut machine = here.machine;
            let _ = machine.handle(boot_now(), Event::Woken);
            self.records.insert(name.to_owned(), saved::Record::new(name, slot, machine.saved()));
        }
    }

    /// What the machine needs to know; `None` while the server is being moved.
    pub(super) fn observe(&mut self, name: &str) -> Option<Observation> {
        let shared_cgroup = self.shared_cgroup(name);
        let deep_obstacle = self.over_budget(name);
        let managed = self.servers.get_mut(name)?;
        let server = Arc::clone(&managed.config);
        let Presence::Here(here) = &managed.presence else { return None };
        let sleeper = Arc::clone(&here.brought.sleeper);
        let state = sleeper.try_ways()?.freezer.state().ok()?;
        let arrays = &self.place.node.arrays;
        let gate_shut = gate::state(arrays.gate(sleeper.slot)) != gate::OPEN;
        let mut accept_queue = None;
        if managed.connections_came && state.frozen {
            managed.connections_came = false;
            if let Ok(all) = sleeper.list_sockets() {
                accept_queue = all
                    .listeners_on(&sleeper.ports)
                    .map(|l| AcceptQueue { waiting: l.accept_queue, backlog: l.backlog })
                    .max_by_key(|queue| u64::from(queue.waiting) * 100 / u64::from(queue.backlog.max(1)));
                // Too few for now, or no quiet moment: looked at again.
                managed.connections_came = accept_queue.is_some_and(|queue| queue.waiting > 0);
            }
        }
        let cpu_percent = match server.limits.busy_cpu_percent {
            Some(_) => cpu_percent(&mut managed.cpu, &here.brought.found.cgroup),
            None => 0,
        };
        Some(Observation {
            last_player: boot_from_monotonic(arrays.state(sleeper.slot).last_player_ns.load(SeqCst)),
            cpu_percent,
            frozen: state.frozen,
            gate_shut,
            cpu_controller: here.brought.controllers.cpu,
            obstacle: here
                .brought
                .obstacle
                .clone()
                .or(shared_cgroup)
                .or_else(|| refused(&server))
                .or_else(|| in_window(&server)),
            deep_obstacle,
            accept_queue,
        })
    }

    /// Gives an event to a server's machine and carries out what follows.
    pub(super) fn feed(&mut self, name: &str, event: Event) {
        let now = boot_now();
        let Some(managed) = self.servers.get_mut(name) else { return };
        let Some(here) = managed.here_mut() else { return };
        let (before, kept_before) = (here.machine.stage(), here.machine.kept().cloned());
        let actions = here.machine.handle(now, event);
        let (after, saved) = (here.machine.stage(), here.machine.saved());
        let kept_changed = here.machine.kept() != kept_before.as_ref();
        managed.plan_next_look();
        let slot = managed.slot;
        if after != before {
            self.stage_changed(name, before, after);
        }
        if after != before || kept_changed {
            self.changes.send_replace(());
        }
        if (!actions.is_empty() || after != before || kept_changed)
            && let Err(error) = saved::store(&self.config.run_dir, name, slot, saved)
        {
            tracing::warn!(server = name, %error, "its stage can't be stored; a restart would wake it");
        }
        for action in actions {
            self.carry_out(name, action);
        }
    }

    /// A knock that did not wake: remembered for `why`.
    pub(super) fn knocked(&mut self, name: &str, class: Class, from: std::net::SocketAddr) {
        if let Some(managed) = self.servers.get_mut(name)
            && class == Class::Noise
            && managed.history.scan_addresses.len() < 1024
        {
            managed.history.scan_addresses.insert(from.ip());
        }
        self.feed(name, Event::Knock { class, from: Some(from) });
    }
}

/// By number and name: nix 0.30 tells of a number that is gone as of an empty name.
pub(super) fn is_there(end: &HostEnd) -> bool {
    nix::net::if_::if_indextoname(end.ifindex).is_ok_and(|name| name.to_bytes() == end.name.as_bytes())
}

fn cpu_percent(last: &mut Option<(Instant, std::time::Duration)>, cgroup: &std::path::Path) -> u32 {
    let Ok(used) = process::cpu_time(cgroup) else { return 0 };
    let now = Instant::now();
    let before = last.replace((now, used));
    let Some((then, used_then)) = before else { return 0 };
    let wall = now.duration_since(then).as_secs_f64();
    if wall < 0.01 { 0 } else { (used.saturating_sub(used_then).as_secs_f64() / wall * 100.0) as u32 }
}

fn refused(server: &crate::config::Server) -> Option<Obstacle> {
    let text = server.profile.refuse.clone()?;
    Some(Obstacle { code: "profile-refuses", text })
}

fn in_window(server: &crate::config::Server) -> Option<Obstacle> {
    if server.limits.windows.is_empty() || server.file.mode == Mode::Observe {
        return None;
    }
    let (weekday, minute) = super::clock::local_weekday_and_minute();
    let inside = server.limits.windows.iter().any(|window| window.contains(weekday, minute));
    inside.then(|| Obstacle {
        code: "window",
        text: "its `windows` say that it never sleeps at this time".to_owned(),
    })
}
