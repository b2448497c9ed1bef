//! Carrying out what a stage machine orders: each order on a thread of its own, each answered once.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use dormouse_api::event::EventKind;
use dormouse_packet::Class;

use super::{
    Agent, Message,
    clock::unix_now_ms,
    device::Recorded,
    managed::{HandedBack, Managed, Presence},
    saved,
};
use crate::{
    discover::process::{self, Resident},
    door::monotonic_ns,
    failpoint,
    limits::DozeBy,
    memory::{
        Cancel,
        cold::page_out_cold,
        group::Group,
        page_out::{Bounds, PagedOut, write_out},
        prefetch::Prefetched,
        swap,
        working_set::WorkingSets,
    },
    sleep::{Back, DozeAborted, Sleeper, Thawed, WakeError, Woken},
    stage::{Action, Demotion, Event, Stage},
    undo::{Change, name_on_disk},
};

/// What became of an order.
pub enum Done {
    Dozed { by: DozeBy, size_bytes: u64 },
    DozeAborted(Result<DozeAborted, &'static str>),
    Deep(Result<Deepened, String>),
    Thawed(Result<Thawed, String>),
    Woken(Result<Option<Woken>, WakeError>),
    Evidence(super::evidence::Gathered),
    Canary(Result<(), String>),
}

/// What a page-out came to, bytes.
pub struct Deepened {
    out: PagedOut,
    /// On swap before: of an earlier sleep, not touched since.
    swapped: u64,
    /// Written to the swap device. What was only read since an earlier sleep is there already.
    written: u64,
    /// All that it holds now. A server that runs for a moment before it goes deep may free memory by itself (node.js
    /// collects when it is idle: 60 MiB were 33 afterwards).
    size: u64,
}

impl Agent {
    pub(super) fn carry_out(&mut self, name: &str, action: Action) {
        match action {
            Action::GatherEvidence { run_hook } => self.gather(name, run_hook),
            Action::EnterDoze { by } => self.enter_doze(name, by),
            Action::GoDeep => self.go_deep(name),
            Action::StopDeep => {
                if let Some(here) = self.servers.get(name).and_then(super::Managed::here) {
                    here.brought.sleeper.stop_deep();
                }
            }
            Action::QueryThaw => self
                .order(name, |sleeper| Done::Thawed(sleeper.query_thaw().map_err(|error| error.to_string()))),
            Action::Wake { cause } => {
                tracing::info!(server = name, cause = cause.code(), "waking: {cause}");
                self.order(name, |sleeper| Done::Woken(sleeper.wake_waiting()));
            }
            Action::RunAfterWake => self.after_wake(name),
            Action::StartCanary => self.canary(name),
            Action::Demote(demotion) => self.demoted(name, &demotion),
            Action::Answer(answer) => {
                let Some(managed) = self.servers.get_mut(name) else { return };
                if !managed.asked_to_sleep.is_empty() {
                    let _ = managed.asked_to_sleep.remove(0).send(answer);
                }
            }
            Action::WouldDoze { by } => {
                let how = if by == DozeBy::Freeze { "frozen" } else { "throttled" };
                self.on_paper(name, format!("observe: would be dozing ({how})"));
            }
            Action::WouldGoDeep => self.on_paper(name, "observe: would be deep".to_owned()),
            Action::WouldWake { cause, from, .. } => {
                self.on_paper(name, format!("observe: would have been woken from {}: {cause}", from.word()));
            }
            Action::WouldRefuse { .. } => {}
        }
    }

    /// Runs something that blocks for a server, and reports what became of it.
    pub(super) fn order(&self, name: &str, work: impl FnOnce(&Sleeper) -> Done + Send + 'static) {
        let Some(managed) = self.servers.get(name) else { return };
        let Some(here) = managed.here() else { return };
        let sleeper = Arc::clone(&here.brought.sleeper);
        let (server, generation, outbox) = (name.to_owned(), managed.generation, self.outbox.clone());
        tokio::task::spawn_blocking(move || {
            let done = work(&sleeper);
            let _ = outbox.send(Message::Done { server, generation, done });
        });
    }

    /// [`Agent::order`], when its turn comes.
    fn order_in_turn(&self, name: &str, work: impl FnOnce(&Sleeper) -> Done + Send + 'static) {
        let Some(managed) = self.servers.get(name) else { return };
        let Some(here) = managed.here() else { return };
        let sleeper = Arc::clone(&here.brought.sleeper);
        let (server, generation, outbox) = (name.to_owned(), managed.generation, self.outbox.clone());
        self.errand(move || {
            let done = work(&sleeper);
            let _ = outbox.send(Message::Done { server, generation, done });
        });
    }

    fn enter_doze(&mut self, name: &str, by: DozeBy) {
        let Some(managed) = self.servers.get(name) else { return };
        let Some(here) = managed.here() else { return };
        let percent = managed.config.limits.throttle_percent;
        let cgroup = here.brought.found.cgroup.clone();
        let decided_ns = monotonic_ns();
        let paths = self.paths.clone();
        self.order_in_turn(name, move |sleeper| {
            if paths.is_off() {
                return Done::DozeAborted(Err("dormouse is off"));
            }
            let before = memory_of(&cgroup);
            let size_bytes = before.anonymous + before.swapped;
            match sleeper.doze(by, percent, decided_ns) {
                // `off` may have come between the look and the freeze.
                Ok(_) if paths.is_off() => {
                    let _ = sleeper.wake_waiting();
                    Done::DozeAborted(Err("dormouse is off"))
                }
                Ok(_) => {
                    failpoint::at("doze-done");
                    Done::Dozed { by, size_bytes }
                }
                Err(aborted) => Done::DozeAborted(Ok(aborted)),
            }
        });
    }

    /// What its wakes touch is known better now.
    pub(super) fn recorded(&mut self, name: &str, recorded: Recorded) {
        if let Some(managed) = self.servers.get_mut(name) {
            managed.history.recorded = recorded;
        }
    }

    fn go_deep(&mut self, name: &str) {
        if let Some(forbidden) = self.forbids_page_out(name) {
            return self.feed(name, Event::DeepAborted { reason: forbidden.text });
        }
        let Some(managed) = self.servers.get(name) else { return };
        let Some(here) = managed.here() else { return };
        let cgroup = here.brought.found.cgroup.clone();
        let group = Group::new(cgroup.clone());
        let by = managed.stage().by().unwrap_or(DozeBy::Freeze);
        let (back, recorded) = self.back(managed, cgroup.clone());
        let bounds = Bounds { keep: managed.config.limits.resident_min, ..Bounds::default() };
        self.recorded(name, recorded);
        self.order(name, move |sleeper| {
            let cancel = Cancel::default();
            let sets = back.sets.clone();
            sleeper.set_back(back);
            sleeper.allow_deep(cancel.clone());
            failpoint::at("deep-begun");
            let log = sleeper.ways().log.clone();
            // Without a memory controller the machine's swap cache is counted: from the first page out to the
            // last one swept, only one server's pages may be in it.
            let alone = !group.has_memory_controller();
            let _turn = alone.then(|| PAGE_OUT.lock().unwrap_or_else(PoisonError::into_inner));
            let mut write_limit = |path: &Path, value: &str| write_with_undo(&log, path, value);
            let swapped = memory_of(&cgroup).swapped;
            let written_before = swap::written();
            // Of the whole machine: with others beside it, no more than what it paged out itself.
            let deepened = |out: PagedOut| {
                let written = swap::written().saturating_sub(written_before).min(out.paged_out);
                let now = memory_of(&cgroup);
                Deepened { out, swapped, written, size: now.anonymous + now.swapped }
            };
            if by == DozeBy::Throttle {
                let out = page_out_cold(&group, bounds, &cancel, &mut write_limit);
                return Done::Deep(out.map(deepened).map_err(|error| error.to_string()));
            }
            let out = write_out(&group, bounds, &cancel, &mut write_limit).and_then(|mut written| {
                if recorded.wakes == 0 && !cancel.is_cancelled() && sleeper.rehearse(&group, &sets) {
                    written.again(&cancel)?;
                }
                // Where nobody's swap cache is counted alone, the next server waits for this one's sweep.
                if !alone {
                    written.wait_until_needed(SWEEP_AFTER, &cancel);
                }
                written.sweep(&cancel)
            });
            failpoint::at("deep-done");
            Done::Deep(out.map(deepened).map_err(|error| error.to_string()))
        });
    }

    /// What it takes to bring its memory back.
    fn back(&self, managed: &Managed, cgroup: PathBuf) -> (Back, Recorded) {
        let sets = working_set_file(&self.config.run_dir, managed.config.name());
        let known = Recorded::of(&WorkingSets::load(&sets).unwrap_or_default());
        let bytes = if known.wakes == 0 { managed.history.size_bytes } else { known.bytes };
        (Back { group: Group::new(cgroup), sets, how: managed.config.limits.bring_back, bytes }, known)
    }

    /// A server that an earlier daemon left asleep: what it has on swap comes back when it wakes.
    pub(super) fn adopt_memory(&mut self, name: &str) {
        let Some(managed) = self.servers.get_mut(name) else { return };
        let Presence::Here(here) = &managed.presence else { return };
        if here.machine.stage().by().is_none() {
            return;
        }
        let deep = matches!(here.machine.stage(), Stage::Deep { .. });
        let (sleeper, cgroup) = (Arc::clone(&here.brought.sleeper), here.brought.found.cgroup.clone());
        let memory = memory_of(&cgroup);
        managed.history.size_bytes = memory.anonymous + memory.swapped;
        // What it was measured by is forgotten with that daemon.
        managed.history.handed_back =
            deep.then_some(HandedBack { bytes: memory.swapped, estimated: true, written_bytes: 0 });
        let Some(managed) = self.servers.get(name) else { return };
        let (back, recorded) = self.back(managed, cgroup);
        sleeper.set_back(back);
        self.recorded(name, recorded);
    }

    /// Its working set is there again.
    pub(super) fn brought_back(&mut self, name: &str, done: &Prefetched) {
        let Some(managed) = self.servers.get_mut(name) else { return };
        tracing::info!(server = name, ?done, "working set is back");
        if let Some(last) = &mut managed.history.last_wake {
            last.phases.working_set_ns = Some(done.took.as_nanos() as u64);
        }
    }

    /// A page-out lifted limits; the server is awake.
    pub(super) fn put_back_limits(&self, name: &str) {
        let Some(here) = self.servers.get(name).and_then(super::Managed::here) else { return };
        let sleeper = Arc::clone(&here.brought.sleeper);
        tokio::task::spawn_blocking(move || sleeper.put_back_limits());
    }

    pub(super) fn done(&mut self, name: &str, generation: u64, done: Done) {
        let Some(managed) = self.servers.get_mut(name).filter(|managed| managed.generation == generation)
        else {
            return;
        };
        match done {
            Done::Dozed { by, size_bytes } => {
                managed.history.size_bytes = size_bytes;
                managed.history.handed_back = None;
                tracing::info!(server = name, ?by, "dozing");
                self.feed(name, Event::DozeDone);
            }
            Done::DozeAborted(aborted) => {
                let reason = match &aborted {
                    Ok(aborted) => {
                        self.metrics.doze_aborted(aborted);
                        aborted.to_string()
                    }
                    Err(off) => (*off).to_owned(),
                };
                tracing::info!(server = name, reason, "falling asleep was called off");
                self.feed(name, Event::DozeAborted { reason });
            }
            Done::Deep(outcome) => {
                // Woken meanwhile, maybe before a limit was lifted.
                if managed.stage().by().is_none() {
                    self.put_back_limits(name);
                }
                match outcome {
                    Ok(deepened) => self.deep(name, &deepened),
                    Err(reason) => {
                        tracing::warn!(server = name, reason, "page-out failed");
                        self.feed(name, Event::DeepAborted { reason });
                    }
                }
            }
            Done::Thawed(outcome) => self.thawed(name, outcome),
            Done::Woken(Ok(woken)) => {
                if let Some(woken) = woken {
                    self.woken(name, &woken, None, "dormouse wake");
                }
                self.feed(name, Event::Woken);
            }
            Done::Woken(Err(error)) => self.feed(name, Event::WakeFailed { reason: error.to_string() }),
            Done::Evidence(gathered) => {
                managed.history.save = gathered.save;
                managed.history.watchdog = gathered.watchdog;
                if let Some(obstacle) = gathered.obstacle
                    && let Presence::Here(here) = &mut managed.presence
                {
                    tracing::warn!(server = name, "it stays awake: {}", obstacle.text);
                    here.brought.obstacle = Some(obstacle);
                    // The machine must know of it before it decides by the evidence.
                    if let Some(observation) = self.observe(name) {
                        self.feed(name, Event::Observed(observation));
                    }
                }
                self.feed(name, Event::Evidence(gathered.evidence));
            }
            Done::Canary(Ok(())) => self.feed(name, Event::CanaryOk),
            Done::Canary(Err(reason)) => {
                tracing::warn!(server = name, reason, "it did not stand the wake");
                self.feed(name, Event::CanaryFailed { reason });
            }
        }
    }

    fn deep(&mut self, name: &str, deepened: &Deepened) {
        let Some(managed) = self.servers.get_mut(name) else { return };
        let Deepened { out, swapped, written, size } = deepened;
        let bytes = out.handed_back.bytes + swapped;
        managed.history.last_written = Some(*written);
        managed.history.left_alone.clone_from(&out.skipped);
        tracing::info!(server = name, ?out, swapped, written, "paged out");
        self.metrics.swap_written(name, *written);
        self.books.wrote(name, &managed.config.profile.name, unix_now_ms(), *written);
        // Who came meanwhile has it all back already, or is about to.
        if managed.stage().by().is_some() {
            managed.history.size_bytes = *size;
            managed.history.handed_back =
                Some(HandedBack { bytes, estimated: out.handed_back.estimated, written_bytes: *written });
            self.metrics.handed_back(name, bytes);
        }
        match out.stopped {
            Some(stop) => self.feed(name, Event::DeepAborted { reason: stop.to_string() }),
            None => self.feed(name, Event::DeepDone { bytes }),
        }
        self.draw_up_the_budget();
    }

    fn thawed(&mut self, name: &str, outcome: Result<Thawed, String>) {
        match outcome {
            Ok(Thawed::Again { replayed, unfinished }) => {
                if replayed > 0 {
                    self.metrics.query_answered(name);
                    self.tell(
                        name,
                        EventKind::Answered,
                        Some(format!("{replayed} packets, then frozen again")),
                    );
                }
                self.feed(name, Event::ThawDone);
                if unfinished {
                    // As if somebody asked anew: the next short thaw comes when the limits allow it.
                    self.feed(name, Event::Knock { class: Class::Query, from: None });
                }
            }
            Ok(Thawed::NotFrozen) => self.feed(name, Event::ThawDone),
            Ok(Thawed::Woken(woken, why)) => {
                self.feed(name, Event::ThawDone);
                if let Some(woken) = woken {
                    self.woken(name, &woken, None, why);
                }
                self.feed(name, Event::Woken);
            }
            Err(reason) => {
                tracing::warn!(server = name, reason, "the short thaw failed");
                self.feed(name, Event::ThawDone);
            }
        }
    }

    pub(super) fn demoted(&mut self, name: &str, demotion: &Demotion) {
        if let Err(error) = saved::store_demotion(&self.config.state_dir, name, demotion) {
            tracing::error!(server = name, %error, "its demotion can't be stored: it would be forgotten at a restart");
        }
        self.metrics.demoted(name);
        self.tell(name, EventKind::Demoted, Some(format!("{}; {}", demotion.reason, demotion.cure)));
    }

    fn on_paper(&mut self, name: &str, what: String) {
        if let Some(managed) = self.servers.get_mut(name) {
            managed.history.paper = Some(what);
        }
    }

    /// The stage is another one: a fresh count, and a line in the journal.
    pub(super) fn stage_changed(&mut self, name: &str, before: Stage, after: Stage) {
        let counters = self
            .servers
            .get(name)
            .and_then(|managed| self.place.node.door().counters(managed.slot).ok())
            .unwrap_or_default();
        if let Some(managed) = self.servers.get_mut(name)
            && (before == Stage::Awake || after == Stage::Awake)
        {
            managed.history.counters_then = counters;
            managed.history.scan_addresses.clear();
            managed.history.expired_then = managed.expired();
        }
        self.book(name);
        match after {
            Stage::Dozing { by } => {
                let how = if by == DozeBy::Freeze { "frozen" } else { "throttled" };
                self.tell(name, EventKind::Doze, Some(how.to_owned()));
            }
            Stage::Deep { .. } => {
                let handed = self.servers.get(name).and_then(|m| m.history.handed_back).map(|h| h.bytes);
                self.tell(
                    name,
                    EventKind::Deep,
                    handed.map(|bytes| format!("{} MiB handed back", bytes >> 20)),
                );
            }
            Stage::Awake => {
                if let Some(managed) = self.servers.get_mut(name) {
                    for waiter in managed.asked_to_wake.drain(..) {
                        let _ = waiter.send(());
                    }
                }
                self.wake_linked(name);
            }
            Stage::Waking => {}
        }
        if let Some(Presence::Here(here)) = self.servers.get(name).map(|m| &m.presence) {
            tracing::info!(server = name, stage = here.machine.stage().word(), "stage");
        }
    }

    fn wake_linked(&mut self, name: &str) {
        let Some(managed) = self.servers.get(name) else { return };
        for linked in managed.config.limits.linked.clone() {
            if self.servers.get(&linked).is_some_and(|other| other.stage().by().is_some()) {
                self.feed(&linked, Event::Wake { keep: None });
            }
        }
    }

    /// A look at the server now, rather than when it is due.
    pub(super) fn look_soon(&mut self, name: &str) {
        if let Some(managed) = self.servers.get_mut(name) {
            managed.next_look = managed.next_look.min(Instant::now());
        }
    }
}

static PAGE_OUT: Mutex<()> = Mutex::new(());

/// How long what went to swap stays in the swap cache too while the node has memory enough: who comes back by then waits
/// for no disk.
const SWEEP_AFTER: std::time::Duration = std::time::Duration::from_secs(10);

/// The file of a server's working sets.
fn working_set_file(run_dir: &Path, name: &str) -> PathBuf {
    let folder = run_dir.join("working-sets");
    let _ = std::fs::create_dir_all(&folder);
    folder.join(name_on_disk(name))
}

/// The memory of all processes of a cgroup.
pub fn memory_of(cgroup: &Path) -> Resident {
    process::resident(&process::cgroup_pids(cgroup).unwrap_or_default()).unwrap_or_default()
}

/// A limit is a change like any other: its old value goes into the undo log first.
fn write_with_undo(log: &crate::undo::UndoLog, path: &Path, value: &str) -> io::Result<()> {
    let (Some(cgroup), Some(file)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let change = Change::cgroup_value(cgroup, file, value).map_err(io::Error::other)?;
    log.before(change).map_err(io::Error::other)?;
    failpoint::at("swap-limit-logged");
    std::fs::write(path, value)?;
    failpoint::at("swap-limit-written");
    Ok(())
}
