//! What must hold whatever happens, told from outside: the model sees events and actions only, and knows
//! the rules in their simplest form.

use super::*;

/// Orders that wait for their answer.
#[derive(Clone, Default, Debug)]
pub struct Waiting {
    evidence: bool,
    doze: bool,
    deep: bool,
    thaw: bool,
    wake: bool,
    canary: bool,
}

fn once(waiting: &mut bool, what: &str) {
    assert!(!std::mem::replace(waiting, true), "two orders of a kind: {what}");
}

#[derive(Clone)]
pub struct Checked {
    pub machine: Machine,
    pub now: Duration,
    waiting: Waiting,
    unanswered: u32,
    mode: Mode,
    limits: Limits,
    kept: Option<Kept>,
    started_at: Duration,
    running: bool,
    /// Something of ours may be down: the only case in which observe may touch, to undo it.
    down: bool,
}

impl Checked {
    pub fn new(setup: Setup) -> Self {
        Self {
            mode: setup.mode,
            limits: setup.limits.clone(),
            started_at: setup.started_at,
            machine: Machine::new(Duration::ZERO, setup),
            now: Duration::ZERO,
            waiting: Waiting::default(),
            unanswered: 0,
            kept: None,
            running: true,
            down: false,
        }
    }

    /// One event, and every invariant after it.
    pub fn tell(&mut self, after: Duration, event: Event) -> Vec<Action> {
        self.now += after;
        let before = self.machine.stage();
        let looked = matches!(event, Event::Observed(_));
        let player = matches!(event, Event::Knock { class: Class::Player, .. });
        self.learn(&event);
        let actions = self.machine.handle(self.now, event);
        if self.kept.as_ref().and_then(|kept| kept.until).is_some_and(|until| until <= self.now) {
            self.kept = None;
        }
        for action in &actions {
            self.check(action);
        }
        self.check_stage();
        if looked {
            self.check_time();
        }
        self.check_words();
        let woken = actions.iter().any(|action| matches!(action, Action::Wake { .. }));
        if player && before.by().is_some() {
            assert!(woken, "a player knocked in {before:?} and got {actions:?}");
        }
        actions
    }

    fn learn(&mut self, event: &Event) {
        match event {
            Event::Evidence(_) => self.waiting.evidence = false,
            Event::DozeDone | Event::DozeAborted { .. } => {
                self.down |= matches!(event, Event::DozeDone);
                self.waiting.doze = false;
            }
            Event::DeepDone { .. } | Event::DeepAborted { .. } => self.waiting.deep = false,
            Event::ThawDone => self.waiting.thaw = false,
            Event::Woken | Event::WakeFailed { .. } => self.waiting.wake = false,
            Event::CanaryOk | Event::CanaryFailed { .. } => self.waiting.canary = false,
            Event::Sleep { .. } => self.unanswered += 1,
            Event::Wake { keep: Some(kept) } | Event::Keep(kept) => self.kept = Some(kept.clone()),
            Event::Release => self.kept = None,
            Event::SetMode(mode) => self.mode = *mode,
            Event::SetLimits(limits) => self.limits = limits.clone(),
            Event::ServerStopping | Event::ServerGone => self.running = false,
            Event::ServerStarted { at } => {
                self.running = true;
                self.started_at = *at;
            }
            Event::Observed(seen) => self.down |= seen.gate_shut,
            _ => {}
        }
    }

    fn check(&mut self, action: &Action) {
        match action {
            Action::GatherEvidence { run_hook } => {
                once(&mut self.waiting.evidence, "evidence");
                assert_eq!(*run_hook, self.mode != Mode::Observe);
            }
            Action::EnterDoze { by } => {
                once(&mut self.waiting.doze, "doze");
                self.down = true;
                assert!(!self.waiting.wake, "asleep while waking");
                assert!(self.now >= self.started_at + self.limits.grace_after_start, "within grace");
                assert!(self.limits.doze_by == DozeBy::Freeze || *by == DozeBy::Throttle);
                self.check_allowed();
            }
            Action::GoDeep => {
                once(&mut self.waiting.deep, "deep");
                assert!(matches!(self.machine.stage(), Stage::Dozing { .. }));
                self.check_deep_allowed();
            }
            Action::StopDeep => assert!(self.waiting.deep, "nothing to stop"),
            Action::QueryThaw => {
                once(&mut self.waiting.thaw, "thaw");
                assert_ne!(self.mode, Mode::Observe);
            }
            Action::Wake { .. } => once(&mut self.waiting.wake, "wake"),
            Action::StartCanary => once(&mut self.waiting.canary, "canary"),
            Action::Answer(_) => {
                self.unanswered = self.unanswered.checked_sub(1).expect("an answer to nobody");
            }
            Action::WouldDoze { .. } | Action::WouldGoDeep | Action::WouldRefuse { .. } => {
                assert_eq!(self.mode, Mode::Observe);
            }
            Action::RunAfterWake | Action::Demote(_) | Action::WouldWake { .. } => {}
        }
        if self.mode == Mode::Observe && action.touches() {
            assert!(
                self.down || self.waiting.canary || *action == Action::RunAfterWake,
                "observe: {action:?}"
            );
        }
    }

    fn check_allowed(&self) {
        assert_ne!(self.mode, Mode::Observe);
        assert_eq!(self.kept, None);
        assert_ne!(self.limits.floor, Floor::Awake);
        assert!(self.running);
    }

    fn check_deep_allowed(&self) {
        assert_eq!((self.mode, self.limits.floor), (Mode::Full, Floor::Deep));
        assert!(self.limits.deep_after.is_some());
    }

    fn check_stage(&self) {
        assert!(self.unanswered <= 1, "a sleep was forgotten");
        match self.machine.stage() {
            Stage::Awake => {}
            Stage::Dozing { .. } => self.check_allowed(),
            Stage::Deep { .. } => {
                self.check_allowed();
                self.check_deep_allowed();
            }
            Stage::Waking => {
                let soon = self.machine.next_deadline().is_some_and(|at| at <= self.now + secs(10));
                assert!(self.waiting.wake || soon, "nobody wakes it");
            }
        }
    }

    /// The caller sleeps until the deadline and looks: it must not spin.
    fn check_time(&self) {
        if let Some(at) = self.machine.next_deadline() {
            assert!(at > self.now, "spins at {at:?}");
        }
        // Looked at and awake, it is on its way down or has a reason not to be.
        assert_ne!(self.machine.why().reason, Reason::Due);
    }

    fn check_words(&self) {
        let why = self.machine.why();
        assert!(!why.reason.to_string().is_empty());
        if let Reason::StaysAwake(refusal) = why.reason {
            assert!(refusal.code().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
        }
    }

    /// Answers all that waits, then a player comes: he must find it awake.
    pub fn settle(mut self) {
        for event in [
            Event::Release,
            Event::DozeDone,
            Event::ThawDone,
            Event::DeepAborted { reason: "x".into() },
            knock(Class::Player),
            Event::Woken,
            Event::Evidence(good()),
            Event::CanaryOk,
            Event::Observed(idle()),
        ] {
            self.tell(secs(1), event);
        }
        assert_eq!(self.machine.stage(), Stage::Awake);
        assert!(!self.waiting.wake && !self.waiting.doze && !self.waiting.evidence, "{:?}", self.waiting);
    }
}
