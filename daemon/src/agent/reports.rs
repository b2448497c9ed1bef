//! What the watch saw, and the wakes that follow from it.

use std::{
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use dormouse_api::{
    event::{Class as ToldClass, EventKind},
    status::Stage as ToldStage,
    why,
};
use dormouse_packet::{Class, headers::TCP};

use super::{
    Agent, Message,
    clock::unix_from_monotonic_ms,
    device::Recorded,
    managed::{AwaitedAnswer, Presence, phases},
};
use crate::{
    door::Knock,
    sleep::{Report, Woken},
    stage::{Cause, Event, Stage},
};

/// How long a woken server may take to its first answer before nobody waits for it any more.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How often it is looked for meanwhile.
const LOOK_FOR_ANSWER: Duration = Duration::from_millis(50);

/// How long strangers' connections are gathered before they are closed.
const HANG_UP_EVERY: Duration = Duration::from_millis(200);
/// More than this many in that time are closed by their own time-outs.
const MOST_STRANGERS: usize = 1024;

impl Agent {
    pub(super) fn report(&mut self, report: Report) {
        self.place.node.heard(&report);
        match report {
            Report::Knock(knock) => self.with_slot(knock.slot, |agent, name| agent.knock(name, &knock)),
            Report::Woken { slot, woken, from } => self.with_slot(slot, |agent, name| {
                agent.woken(name, &woken, from.as_ref(), "player");
                agent.feed(name, Event::Woken);
            }),
            Report::WakeFailed { slot, reason } => {
                self.with_slot(slot, |agent, name| agent.feed(name, Event::WakeFailed { reason }));
            }
            Report::BroughtBack { slot, done } => {
                self.with_slot(slot, |agent, name| agent.brought_back(name, &done));
            }
            Report::Recorded { slot, bytes, wakes } => {
                self.with_slot(slot, |agent, name| agent.recorded(name, Recorded { bytes, wakes }));
            }
            Report::Queried(slot) => self.with_slot(slot, |agent, name| {
                agent.feed(name, Event::Knock { class: Class::Query, from: None });
            }),
            Report::Connected(slot) => self.with_slot(slot, |agent, name| {
                if let Some(managed) = agent.servers.get_mut(name) {
                    managed.connection_came();
                }
            }),
            Report::Handshake(knock) => {
                self.with_slot(knock.slot, |agent, name| agent.check(name, knock, Duration::ZERO));
            }
            Report::Patience(knock) => self.with_slot(knock.slot, |agent, name| {
                if let Some(managed) = agent.servers.get_mut(name) {
                    managed.connection_came();
                    let patience = managed.config.limits.patience;
                    agent.check(name, knock, patience);
                }
            }),
        }
    }

    fn with_slot(&mut self, slot: u32, then: impl FnOnce(&mut Self, &str)) {
        // Not by looking through all servers: strangers choose how often this is asked.
        if let Some(sleeper) = self.place.node.slots.get(slot) {
            then(self, &sleeper.name);
        }
    }

    fn knock(&mut self, name: &str, knock: &Knock) {
        if knock.class == Class::Noise {
            let mut told = self.told(name, EventKind::Refused, Some("not the game's protocol".to_owned()));
            told.from = Some(knock.from.to_string());
            told.class = Some(told_class(knock.class));
            self.journal.note(told);
        }
        if knock.class == Class::Noise && knock.protocol == TCP {
            self.hang_up_soon(name, knock);
        }
        self.knocked(name, knock.class, knock.from);
    }

    /// Closes strangers' connections, many at a time: each list of sockets costs, and strangers come in herds.
    fn hang_up_soon(&mut self, name: &str, knock: &Knock) {
        let Some(managed) = self.servers.get_mut(name) else { return };
        let first = managed.strangers.is_empty();
        if managed.strangers.len() < MOST_STRANGERS {
            managed.strangers.insert(knock.from);
        }
        if first {
            let (server, outbox) = (name.to_owned(), self.outbox.clone());
            tokio::spawn(async move {
                tokio::time::sleep(HANG_UP_EVERY).await;
                let _ = outbox.send(Message::HangUp(server));
            });
        }
    }

    pub(super) fn hang_up(&mut self, name: &str) {
        let Some(managed) = self.servers.get_mut(name) else { return };
        let strangers = std::mem::take(&mut managed.strangers);
        let Some(here) = managed.here() else { return };
        let sleeper = std::sync::Arc::clone(&here.brought.sleeper);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = sleeper.close_connections(&strangers) {
                tracing::debug!(server = %sleeper.name, %error, "strangers were not hung up on");
            }
        });
    }

    /// After `wait`, asks the server's kernel whether the connection is still there; if so, a player is
    /// waiting: a server that speaks first, or somebody who is silent for reasons of their own.
    fn check(&mut self, name: &str, knock: Knock, wait: Duration) {
        let Some(managed) = self.servers.get_mut(name) else { return };
        if knock.protocol == TCP && knock.class != Class::Noise {
            managed.waiting.add(knock, Instant::now() + wait);
            self.plan_to_ask(name);
        }
    }

    fn plan_to_ask(&mut self, name: &str) {
        let Some(at) = self.servers.get_mut(name).and_then(|managed| managed.waiting.plan()) else { return };
        let (server, outbox) = (name.to_owned(), self.outbox.clone());
        tokio::spawn(async move {
            tokio::time::sleep_until(at.into()).await;
            let _ = outbox.send(Message::AskFor(server));
        });
    }

    pub(super) fn ask_for(&mut self, name: &str) {
        let Some(managed) = self.servers.get_mut(name) else { return };
        let due = managed.waiting.take(Instant::now());
        let sleeper = managed.here().map(|here| std::sync::Arc::clone(&here.brought.sleeper));
        let (server, outbox) = (name.to_owned(), self.outbox.clone());
        tokio::task::spawn_blocking(move || {
            if let Some(sleeper) = sleeper.filter(|sleeper| sleeper.is_asleep())
                && let Ok(sockets) = sleeper.list_sockets()
                && let Some(player) = due.found(&sockets, &sleeper.ports)
            {
                sleeper.want(player);
            }
            let _ = outbox.send(Message::AskedFor(server));
        });
    }

    pub(super) fn asked_for(&mut self, name: &str) {
        if let Some(managed) = self.servers.get_mut(name) {
            managed.waiting.answered();
            self.plan_to_ask(name);
        }
    }

    /// A server was woken: remembered, told, and its working set brought back.
    pub(super) fn woken(&mut self, name: &str, woken: &Woken, from: Option<&Knock>, what: &str) {
        let Some(managed) = self.servers.get_mut(name) else { return };
        let stage = managed.stage();
        let deep = managed.history.handed_back.is_some();
        let from_stage = if deep { ToldStage::Deep } else { ToldStage::Dozing };
        let what = match (what, managed.config.profile.protocol) {
            ("player", Some(game)) => format!("{game:?} player"),
            (what, _) => what.to_owned(),
        };
        managed.history.last_wake = Some(why::LastWake {
            at_ms: unix_from_monotonic_ms(woken.knocked_ns.unwrap_or(woken.decided_ns)),
            from: from.map(|knock| knock.from.to_string()),
            class: from.map(|knock| told_class(knock.class)),
            what: what.clone(),
            from_stage,
            phases: phases(woken, None),
            retransmissions: None,
        });
        managed.history.answer_awaited =
            Some(AwaitedAnswer { woken: *woken, until: Instant::now() + ANSWER_WITHIN });
        let paged_out = managed.history.handed_back.take().is_some() || deep;
        managed.next_look = Instant::now() + LOOK_FOR_ANSWER;
        let by = woken.by;
        let from_by = if deep { Stage::Deep { by } } else { Stage::Dozing { by } };
        managed.history.woken_from = Some(from_by);
        let cause = match from {
            Some(knock) => Cause::Player { from: Some(knock.from) },
            None => managed.here().and_then(|here| here.machine.why().last_cause).unwrap_or(Cause::Doubt),
        };
        self.metrics.woken(name, &cause, from_by);
        self.metrics.handed_back(name, 0);
        let mut told = self.told(name, EventKind::Wake, Some(what));
        told.from = from.map(|knock| knock.from.to_string());
        told.class = from.map(|knock| told_class(knock.class));
        told.phases = Some(phases(woken, None));
        self.journal.note(told);
        tracing::info!(server = name, replayed = woken.replayed, was = stage.word(), "woken");
        if paged_out {
            self.put_back_limits(name);
        }
    }

    /// Whether the door has seen the first answer after a wake.
    pub(super) fn look_for_answer(&mut self, name: &str) {
        let Some(managed) = self.servers.get_mut(name) else { return };
        let Some(awaited) = managed.history.answer_awaited else { return };
        let Presence::Here(here) = &managed.presence else { return };
        let node = &self.place.node;
        let state = node.arrays.state(here.brought.sleeper.slot);
        let answer = state.answer_ns.swap(0, SeqCst);
        if answer != 0 {
            managed.history.answer_awaited = None;
            node.arrays.answer_came();
            if let (Some(from), Some(knocked)) = (managed.history.woken_from, awaited.woken.knocked_ns) {
                self.metrics.answered(from, Duration::from_nanos(answer.saturating_sub(knocked)));
            }
            if let Some(last) = &mut managed.history.last_wake {
                last.phases = phases(&awaited.woken, Some(answer));
            }
        } else if Instant::now() > awaited.until {
            managed.history.answer_awaited = None;
            if state.await_answer_ns.swap(0, SeqCst) != 0 {
                node.arrays.answer_came();
            }
        } else if managed.stage() == Stage::Awake {
            managed.next_look = managed.next_look.min(Instant::now() + LOOK_FOR_ANSWER);
        }
    }
}

fn told_class(class: Class) -> ToldClass {
    match class {
        Class::Player => ToldClass::Player,
        Class::Query => ToldClass::Query,
        Class::Probe => ToldClass::Probe,
        Class::Noise => ToldClass::Noise,
        Class::Undecided => ToldClass::Undecided,
    }
}
