//! The agent: one task that owns every server's stage machine. Reports and answers come in as messages,
//! orders go out to threads of their own; nothing here blocks, and nothing here is on a packet's way.

mod answers;
mod books;
mod bring_up;
pub(crate) mod clock;
mod device;
mod erase;
mod evidence;
mod journal;
mod look;
mod managed;
mod operator;
mod orders;
mod pool;
mod probers;
mod reports;
mod saved;
mod signs;
mod start;
mod status;
mod waiting;
mod wear;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use dormouse_api::{
    event::{Event as Told, EventKind},
    preflight::Disk,
};
use tokio::sync::{mpsc, oneshot, watch};

pub use start::{Handle, StartError, start};

use bring_up::{BringUpError, Brought, Place};
use clock::unix_now_ms;
use journal::Journal;
use managed::Managed;

use crate::{
    config::{self, Loaded},
    discover::process::Resident,
    failpoint, guard,
    metrics::Metrics,
    pool::Pool,
    savings::Books,
    sleep::Report,
    stage, undo,
};

/// How often the `off` marker and the configuration's age are looked at.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// What comes in.
enum Message {
    /// From the watch.
    Report(Report),
    /// A server was looked for.
    Brought {
        server: String,
        generation: u64,
        outcome: Result<Box<Brought>, BringUpError>,
    },
    /// An order was carried out.
    Done {
        server: String,
        generation: u64,
        done: orders::Done,
    },
    /// The main process of a server has ended.
    Ended {
        server: String,
        generation: u64,
    },
    /// A link of the node came, went, or was renamed.
    LinksChanged,
    /// The device that deep sleepers come back from was measured.
    DeviceMeasured {
        of: (PathBuf, u64),
        measured: Result<Disk, String>,
    },
    /// What servers hold was read.
    Measured(Vec<(String, Resident)>),
    /// Strangers' connections to this server are to be closed.
    HangUp(String),
    /// Those who wait at this server are due to be asked for.
    AskFor(String),
    /// They were asked for.
    AskedFor(String),
    /// An operator asks.
    Ask(operator::Ask),
    /// SIGHUP, or a file was written by ourselves.
    Reload,
    /// The metrics are read: they are to be of now.
    Measure(oneshot::Sender<()>),
    Stop(oneshot::Sender<()>),
}

/// The agent's state.
pub struct Agent {
    config: config::Node,
    paths: guard::Paths,
    place: Arc<Place>,
    metrics: Arc<Metrics>,
    books: Arc<Books>,
    /// As it was drawn up last.
    pool: Pool,
    /// Memory is missing, and nobody can go deeper.
    pool_exhausted: bool,
    device: device::Device,
    wear: wear::Wear,
    loaded: Loaded,
    servers: BTreeMap<String, Managed>,
    journal: Arc<Journal>,
    /// A stage, a keep or a mode changed: what the control plane is told at once.
    changes: watch::Sender<()>,
    inbox: mpsc::UnboundedReceiver<Message>,
    outbox: mpsc::UnboundedSender<Message>,
    /// What an earlier daemon of this boot left behind, by server.
    records: BTreeMap<String, saved::Record>,
    /// `dormouse off`: nothing is managed until `on`.
    off: bool,
}

impl Agent {
    async fn run(mut self) {
        self.reload();
        self.end_leftovers();
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut probers = tokio::time::interval(probers::LOOK_FOR_PROBERS);
        probers.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stops = tokio::time::interval(signs::LOOK_FOR_STOPS);
        stops.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut booking = tokio::time::interval(books::EVERY);
        booking.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let next = self.next_look();
            tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(Message::Stop(done)) => {
                        failpoint::at("stop-begun");
                        if let Err(error) = self.books.write(unix_now_ms()) {
                            tracing::warn!("{error}");
                        }
                        // SIGTERM decides nothing: sleepers sleep on, the guard watches (design §3).
                        let _ = done.send(());
                        return;
                    }
                    Some(message) => self.take(message),
                    None => return,
                },
                () = tokio::time::sleep_until(next.into()) => self.look_at_due(),
                _ = housekeeping.tick() => self.keep_house(),
                _ = probers.tick() => self.look_for_probers(),
                _ = stops.tick() => self.look_for_stops(),
                _ = booking.tick() => {
                    self.look_at_device();
                    self.draw_up_the_budget();
                    self.keep_books();
                }
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Report(report) => self.report(report),
            Message::Brought { server, generation, outcome } => self.brought(&server, generation, outcome),
            Message::Done { server, generation, done } => self.done(&server, generation, done),
            Message::Ended { server, generation } => self.ended(&server, generation),
            Message::DeviceMeasured { of, measured } => self.device_measured(&of, measured),
            Message::LinksChanged => self.links_changed(),
            Message::Measured(measured) => self.sizes_read(&measured),
            Message::HangUp(server) => self.hang_up(&server),
            Message::AskFor(server) => self.ask_for(&server),
            Message::AskedFor(server) => self.asked_for(&server),
            Message::Ask(ask) => self.answer(ask),
            Message::Reload => self.reload(),
            Message::Measure(done) => {
                self.measure();
                let _ = done.send(());
            }
            Message::Stop(_) => {}
        }
    }

    fn keep_house(&mut self) {
        let off = self.paths.is_off();
        if off != self.off {
            self.off = off;
            if off { self.turn_off() } else { self.turn_on() }
        }
        self.draw_up_the_pool();
        if self.loaded.next_end().is_some_and(|end| end <= SystemTime::now()) {
            self.reload();
        }
    }

    /// What only counts up elsewhere is read off, when somebody wants to see it: at rest it costs nothing.
    fn measure(&self) {
        self.metrics.guard_up(guard::is_running(&self.paths));
        if let Ok(unparsed) = self.place.node.door().unparsed() {
            self.metrics.unparsed(unparsed);
        }
        for (name, managed) in &self.servers {
            let Some(here) = managed.here() else { continue };
            let sleeper = &here.brought.sleeper;
            if let Ok(counters) = self.place.node.door().counters(sleeper.slot) {
                self.metrics.door(name, &counters, sleeper.tally());
            }
            self.metrics.server(name, &managed.config.profile.name, managed.stage());
            let refusal = match here.machine.why().reason {
                stage::Reason::StaysAwake(refusal) => Some(refusal),
                _ => None,
            };
            self.metrics.sleep_refused(name, refusal.as_ref());
        }
    }

    /// The marker of `dormouse off` appeared: put everything back and let go.
    fn turn_off(&mut self) {
        failpoint::at("off-seen");
        tracing::info!("dormouse is off: every server is woken and left alone until `dormouse on`");
        for (name, managed) in std::mem::take(&mut self.servers) {
            self.let_go(&name, managed);
        }
    }

    /// The marker is gone. `off` took the pins of the maps away, by which the guard knows that we live.
    fn turn_on(&mut self) {
        tracing::info!("dormouse is on again");
        if let Err(error) = self.place.node.door().pin_maps() {
            tracing::error!(%error, "the guard can't see this daemon and wakes who sleeps; restart dormoused");
        }
        failpoint::at("on-pinned");
        self.reload();
    }

    /// Once at the start: who was asleep when an earlier daemon ended and is not managed any more (its file is
    /// gone or wrong, or dormouse is off) is woken, and the door forgets whom nobody has.
    fn end_leftovers(&mut self) {
        let mine: BTreeSet<u32> = self.servers.values().map(|managed| managed.slot).collect();
        let mut door = self.place.node.door();
        for (key, server) in door.watched() {
            if !mine.contains(&server.slot) {
                door.unwatch(&key);
            }
        }
        drop(door);
        let servers = &self.servers;
        self.records.retain(|name, record| {
            let managed = servers.contains_key(name);
            if !managed {
                self.place.node.give_up(record.slot);
                saved::forget(&self.config.run_dir, name);
            }
            managed
        });
        let logs = match undo::logs(&self.config.run_dir) {
            Ok(logs) => logs,
            Err(error) => return tracing::error!(%error, "what an earlier daemon changed can't be read"),
        };
        for log in logs {
            let undo::Owner::Server(name) = log.owner() else { continue };
            if self.servers.contains_key(name) {
                continue;
            }
            tracing::info!(server = name, "it is not managed any more: what was changed is put back");
            match log.play_back() {
                Err(error) => {
                    tracing::error!(server = name, %error, "could not be put back; `dormouse off` will");
                }
                Ok(played) => {
                    for (change, outcome) in played.changes {
                        if let Err(error) = outcome {
                            tracing::error!(server = name, %change, %error, "could not be put back");
                        }
                    }
                }
            }
        }
    }

    /// Wakes a server that is no longer managed, and takes its door off.
    fn let_go(&self, name: &str, managed: Managed) {
        saved::forget(&self.config.run_dir, name);
        self.metrics.forget(name);
        if let managed::Presence::Here(here) = managed.presence {
            let place = Arc::clone(&self.place);
            tokio::task::spawn_blocking(move || {
                if let Err(error) = here.brought.sleeper.wake_waiting() {
                    tracing::warn!(server = %here.brought.sleeper.name, %error, "could not be woken; the guard and `off` will");
                }
                here.brought.sleeper.put_back_limits();
                place.take_down(&here.brought);
            });
        }
    }

    /// Reads the configuration again: servers come, go, and change their limits.
    fn reload(&mut self) {
        if self.off {
            return;
        }
        let loaded = config::load(&self.config, SystemTime::now());
        self.metrics.config_errors(loaded.errors.len());
        for error in &loaded.errors {
            tracing::error!("{error}");
        }
        let gone: Vec<String> =
            self.servers.keys().filter(|name| !loaded.servers.contains_key(*name)).cloned().collect();
        for name in gone {
            if let Some(managed) = self.servers.remove(&name) {
                self.let_go(&name, managed);
            }
        }
        for (name, server) in &loaded.servers {
            self.take_on(name, server);
        }
        self.loaded = loaded;
    }

    fn take_on(&mut self, name: &str, server: &config::Server) {
        let server = Arc::new(server.clone());
        if let Some(managed) = self.servers.get_mut(name) {
            let before = std::mem::replace(&mut managed.config, Arc::clone(&server));
            if before.file.select != server.file.select || before.file.ports != server.file.ports {
                let slot = managed.slot;
                let old = std::mem::replace(managed, Managed::new(server, slot));
                self.let_go(name, old);
                return;
            }
            if managed.here().is_some() {
                managed.apply_manners();
                self.feed(name, stage::Event::SetMode(server.file.mode));
                self.feed(name, stage::Event::SetLimits(server.limits.clone()));
            }
            return;
        }
        let taken: BTreeSet<u32> = self
            .servers
            .values()
            .map(|managed| managed.slot)
            .chain(self.records.values().map(|record| record.slot))
            .collect();
        // A sleeper keeps its slot: the pinned maps and the undo log know it by that.
        let known = self.records.get(name).map(|record| record.slot);
        match known.or_else(|| self.place.node.slots.free(|slot| taken.contains(&slot))) {
            Some(slot) => {
                if known.is_none() {
                    self.place.node.arrays.reset(slot);
                }
                self.servers.insert(name.to_owned(), Managed::new(server, slot));
            }
            None => {
                tracing::error!(server = name, "this node holds as many servers as it can; it stays awake");
            }
        }
    }

    fn next_look(&self) -> Instant {
        let far = Instant::now() + HOUSEKEEPING * 10;
        self.servers.values().map(Managed::due).min().unwrap_or(far).min(far)
    }

    /// Tells the journal of something about a server.
    fn tell(&self, server: &str, kind: EventKind, detail: Option<String>) {
        self.journal.note(self.told(server, kind, detail));
    }

    fn tell_of_node(&self, kind: EventKind, detail: String) {
        let told = Told {
            at_ms: unix_now_ms(),
            kind,
            server: None,
            profile: None,
            from: None,
            class: None,
            phases: None,
            detail: Some(detail),
        };
        self.journal.note(told);
    }

    fn told(&self, server: &str, kind: EventKind, detail: Option<String>) -> Told {
        Told {
            at_ms: unix_now_ms(),
            kind,
            server: Some(server.to_owned()),
            profile: self.servers.get(server).map(|managed| managed.config.profile.name.clone()),
            from: None,
            class: None,
            phases: None,
            detail,
        }
    }
}
