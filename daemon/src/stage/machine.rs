//! The machine's state, and the one place where events come in and time passes.

use std::time::Duration;

use dormouse_packet::Class;

use super::{
    Action, Asker, Cause, Demotion, Event, Kept, Observation, RETRY_FIRST, Refusal, Stage,
    budget::WakeBudget, evidence::Way, gates::opens_at, hold::Hold, saved::Saved,
};
use crate::limits::{DozeBy, Limits, Mode};

/// What a machine is made from.
#[derive(Clone, Debug)]
pub struct Setup {
    pub mode: Mode,
    pub limits: Limits,
    /// A protocol without a challenge: a player's packet can be forged, so a spent wake budget doesn't keep
    /// it awake (anybody could buy that), it only keeps it from going deep.
    pub spoofable: bool,
    /// When the server's process started, on the boot clock.
    pub started_at: Duration,
    pub demotion: Option<Demotion>,
}

/// Whether there is a process that could sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Running {
    Yes,
    Stopping,
    Gone,
}

/// Orders given and not yet answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Orders {
    pub evidence: Option<Gathering>,
    pub doze: Option<Dozing>,
    pub deep: Option<Deepening>,
    pub thaw: bool,
    pub wake: bool,
    pub canary: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Gathering {
    pub run_hook: bool,
    /// The mode changed meanwhile: the answer is worth nothing.
    pub stale: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Dozing {
    /// A wake overtook it.
    pub cancelled: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Deepening {
    pub stopping: bool,
}

/// An operator's `sleep` that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub deep: bool,
}

/// A wake that the server must still stand.
#[derive(Clone, Debug)]
pub(super) struct AfterWake {
    pub by: DozeBy,
    /// Dying before this is put down to the wake.
    pub until: Duration,
}

/// The stage machine of one server. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Machine {
    pub(super) mode: Mode,
    pub(super) limits: Limits,
    pub(super) spoofable: bool,
    pub(super) now: Duration,
    pub(super) stage: Stage,
    pub(super) since: Duration,
    /// The stage is one on paper: the server itself is awake and untouched.
    pub(super) paper: bool,
    pub(super) running: Running,
    pub(super) started_at: Duration,
    pub(super) watched_since: Duration,
    pub(super) last_player: Option<Duration>,
    pub(super) last_knock: Option<Duration>,
    pub(super) seen: Option<Observation>,
    pub(super) kept: Option<Kept>,
    pub(super) demotion: Option<Demotion>,
    pub(super) wakes: WakeBudget,
    pub(super) last_wake: Option<Duration>,
    pub(super) orders: Orders,
    pub(super) asked: Option<Asked>,
    pub(super) doze_hold: Hold,
    pub(super) deep_hold: Hold,
    /// How the present or last sleep was entered, and when it was ordered.
    pub(super) way: Option<Way>,
    pub(super) doze_ordered_at: Duration,
    /// Before this, an observation may be older than our own last freeze.
    pub(super) settled_at: Duration,
    pub(super) last_thaw: Option<Duration>,
    pub(super) queries_waiting: bool,
    /// So many in the accept queue that it is to be emptied when nobody knocks.
    pub(super) connections_waiting: bool,
    pub(super) cause: Option<Cause>,
    pub(super) wake_failed: Option<String>,
    pub(super) retry_at: Option<Duration>,
    pub(super) retry_wait: Duration,
    pub(super) watchdog_cure: Option<String>,
    pub(super) after_wake: Option<AfterWake>,
    pub(super) actions: Vec<Action>,
}

impl Machine {
    /// A server seen for the first time: awake.
    pub fn new(now: Duration, setup: Setup) -> Self {
        Self {
            mode: setup.mode,
            limits: setup.limits,
            spoofable: setup.spoofable,
            now,
            stage: Stage::Awake,
            since: now,
            paper: false,
            running: Running::Yes,
            started_at: setup.started_at,
            watched_since: now,
            last_player: None,
            last_knock: None,
            seen: None,
            kept: None,
            demotion: setup.demotion,
            wakes: WakeBudget::default(),
            last_wake: None,
            orders: Orders::default(),
            asked: None,
            doze_hold: Hold::default(),
            deep_hold: Hold::default(),
            way: None,
            doze_ordered_at: Duration::ZERO,
            settled_at: now,
            last_thaw: None,
            queries_waiting: false,
            connections_waiting: false,
            cause: None,
            wake_failed: None,
            retry_at: None,
            retry_wait: RETRY_FIRST,
            watchdog_cure: None,
            after_wake: None,
            actions: Vec::new(),
        }
    }

    /// A server that an earlier daemon of this boot left behind, perhaps asleep. What was under way then is
    /// unknown now, so a server in the middle of a change is woken by the first event.
    pub fn adopted(now: Duration, setup: Setup, saved: Saved) -> Self {
        let replaced = saved.started_at != setup.started_at;
        let mut machine = Self::new(now, setup);
        machine.stage = saved.stage;
        machine.since = saved.since;
        machine.watched_since = saved.watched_since;
        machine.last_player = saved.last_player;
        machine.kept = saved.kept;
        machine.wakes = saved.wakes;
        machine.last_wake = saved.last_wake;
        machine.way = saved.way;
        machine.doze_ordered_at = saved.doze_ordered_at;
        if machine.stage == Stage::Waking || replaced && machine.stage != Stage::Awake {
            machine.stage = Stage::Waking;
            machine.cause = Some(if replaced { Cause::ProcessChanged } else { Cause::Doubt });
            machine.retry_at = Some(now);
        }
        machine
    }

    /// What a later daemon needs for [`Machine::adopted`]. To be stored after every event that yields
    /// actions. (The demotion is stored apart: it outlives the boot, this doesn't.)
    pub fn saved(&self) -> Saved {
        let stage = match self.stage {
            _ if self.paper => Stage::Awake,
            Stage::Awake if self.orders.doze.is_some() => Stage::Waking,
            stage => stage,
        };
        Saved {
            stage,
            since: self.since,
            started_at: self.started_at,
            watched_since: self.watched_since,
            last_player: self.last_player,
            kept: self.kept.clone(),
            wakes: self.wakes.clone(),
            last_wake: self.last_wake,
            way: self.way.clone(),
            doze_ordered_at: self.doze_ordered_at,
        }
    }

    /// The stage the server is really in: in mode observe always awake.
    pub fn stage(&self) -> Stage {
        if self.paper { Stage::Awake } else { self.stage }
    }

    /// When the last player was here; of whom nobody saw one, when its stage began.
    pub fn idle_since(&self) -> Duration {
        self.last_player.unwrap_or(self.since)
    }

    /// Whether a page-out was ordered and not yet answered.
    pub fn is_going_deep(&self) -> bool {
        self.orders.deep.is_some()
    }

    /// Whether [`Event::PoolLow`] would send it deep now.
    pub fn could_go_deep(&self) -> bool {
        let dozing = matches!(self.stage, Stage::Dozing { .. }) && !self.paper;
        dozing && self.deep_gates(Asker::Pool).is_empty()
    }

    /// In mode observe: the stage that it would be in.
    pub fn stage_on_paper(&self) -> Option<Stage> {
        self.paper.then_some(self.stage)
    }

    /// Takes an event in and gives the actions that follow, in order. `now` is the boot clock; for an
    /// observation, the time when it was made. A time before an earlier one is taken for that one.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let settled = now > self.settled_at;
        self.now = self.now.max(now);
        let fresh = matches!(event, Event::Observed(_));
        match event {
            Event::Observed(seen) => self.observed(seen, settled),
            Event::Evidence(evidence) => self.evidence(&evidence),
            Event::DozeDone => self.doze_done(),
            Event::DozeAborted { reason } => self.doze_aborted(reason),
            Event::DeepDone { .. } => self.deep_done(),
            Event::DeepAborted { reason } => self.deep_aborted(reason),
            Event::ThawDone => {
                self.orders.thaw = false;
                self.settled_at = self.now;
            }
            Event::Knock { class, from } => self.knock(class, from),
            Event::Woken => self.woken(),
            Event::WakeFailed { reason } => self.wake_failed(reason),
            Event::CanaryOk => self.orders.canary = false,
            Event::CanaryFailed { reason } => self.canary_failed(&reason),
            Event::Sleep { deep } => self.sleep_asked(deep),
            Event::Wake { keep } => self.wake_asked(keep),
            Event::Keep(kept) => self.kept = Some(kept),
            Event::Release => self.kept = None,
            Event::Pardon => {
                self.demotion = None;
                self.forget_holds();
            }
            Event::SetMode(mode) => self.set_mode(mode),
            Event::SetLimits(limits) => {
                self.limits = limits;
                self.forget_holds();
            }
            Event::ServerStopping if self.running == Running::Yes => self.running = Running::Stopping,
            Event::ServerStopping => {}
            Event::ServerGone => self.server_gone(),
            Event::ServerStarted { at } => self.server_started(at),
            Event::PoolLow => {
                if matches!(self.stage, Stage::Dozing { .. }) {
                    // Refused = it stays dozing; `why` has the reason.
                    let _refused = self.go_deep(Asker::Pool);
                }
            }
            Event::Pressure => self.stop_deep(),
        }
        self.follow_time(fresh);
        std::mem::take(&mut self.actions)
    }

    fn observed(&mut self, seen: Observation, settled: bool) {
        self.last_player = self.last_player.max(seen.last_player);
        let Observation { frozen, gate_shut, accept_queue, .. } = seen;
        self.seen = Some(seen);
        // On paper nothing is shut or frozen; in a thaw or on the way down it is in flux.
        let telling = settled && !self.paper && !self.orders.thaw && self.orders.doze.is_none();
        match self.stage.by() {
            Some(_) if self.last_player > Some(self.doze_ordered_at) => {
                self.begin_wake(Cause::Player { from: None });
            }
            Some(DozeBy::Freeze) if telling && !frozen => self.begin_wake(Cause::ThawedByOther),
            Some(_) if telling && !gate_shut => self.begin_wake(Cause::Doubt),
            Some(DozeBy::Freeze) if !self.paper => {
                if let Some(queue) = accept_queue {
                    self.accept_queue(queue);
                }
            }
            None if telling && gate_shut && self.stage == Stage::Awake => self.begin_wake(Cause::Doubt),
            _ => {}
        }
    }

    fn knock(&mut self, class: Class, from: Option<std::net::SocketAddr>) {
        self.last_knock = Some(self.now);
        if class == Class::Player {
            self.last_player = Some(self.now);
            if self.asleep_or_entering() {
                self.begin_wake(Cause::Player { from });
            }
        } else if self.paper {
            self.actions.push(Action::WouldRefuse { class });
        } else if matches!(class, Class::Query | Class::Probe) {
            self.query();
        }
    }

    fn set_mode(&mut self, mode: Mode) {
        if mode == self.mode {
            return;
        }
        self.mode = mode;
        self.forget_holds();
        if let Some(gathering) = &mut self.orders.evidence {
            gathering.stale = true;
        }
        if self.paper {
            self.paper = false;
            self.enter(Stage::Awake);
        }
    }

    /// What follows from the rules and the clock alone.
    fn follow_time(&mut self, fresh: bool) {
        if self.kept.as_ref().and_then(|kept| kept.until).is_some_and(|until| until <= self.now) {
            self.kept = None;
        }
        if self.asleep_or_entering()
            && let Some(by) = self.stage.by().or(self.way.as_ref().map(|way| way.by))
            && let Some(refusal) = self.rule_against_this_sleep(by)
        {
            self.begin_wake(Cause::NotAllowed(refusal));
        }
        if self.retry_at.is_some_and(|at| at <= self.now) {
            self.order_wake();
        }
        match self.stage {
            Stage::Awake if fresh => self.consider_doze(Asker::Time),
            Stage::Dozing { .. } if self.deep_at().is_some_and(|at| at <= self.now) => {
                // Refused = it stays dozing; `why` has the reason.
                let _refused = self.go_deep(Asker::Time);
            }
            _ => {}
        }
        if self.thaw_at().is_some_and(|at| at <= self.now) {
            self.thaw();
        }
    }

    /// When to make the next observation at the latest. `None` = nothing waits for time alone; the usual
    /// slow look is enough.
    pub fn next_deadline(&self) -> Option<Duration> {
        let kept_end = self.kept.as_ref().and_then(|kept| kept.until);
        [self.doze_at(), self.deep_at(), self.thaw_at(), self.retry_at, kept_end].into_iter().flatten().min()
    }

    /// When an awake server may be asked for evidence.
    pub(super) fn doze_at(&self) -> Option<Duration> {
        if self.stage != Stage::Awake || self.orders.evidence.is_some() || self.orders.doze.is_some() {
            return None;
        }
        opens_at(&self.doze_gates(Asker::Time)).map(|at| at.max(self.now))
    }

    pub(super) fn deep_at(&self) -> Option<Duration> {
        if !matches!(self.stage, Stage::Dozing { .. }) {
            return None;
        }
        opens_at(&self.deep_gates(Asker::Time)).map(|at| at.max(self.now))
    }

    pub(super) fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.since = self.now;
    }

    /// Asleep, on paper too, or on the way there.
    pub(super) fn asleep_or_entering(&self) -> bool {
        match self.stage {
            Stage::Dozing { .. } | Stage::Deep { .. } => true,
            Stage::Awake => self.orders.doze.as_ref().is_some_and(|doze| !doze.cancelled),
            Stage::Waking => false,
        }
    }

    pub(super) fn answer(&mut self, answer: Result<(), Refusal>) {
        if self.asked.take().is_some() {
            let stage = self.stage;
            self.actions.push(Action::Answer(answer.map(|()| stage)));
        }
    }

    fn forget_holds(&mut self) {
        self.doze_hold = Hold::default();
        self.deep_hold = Hold::default();
    }
}
