//! The way down: awake → evidence → dozing → deep.

use super::{
    Action, Asker, Cause, Evidence, Machine, Refusal, Running, Stage,
    evidence::{Way, throttle_without_evidence},
    machine::{Asked, Deepening, Dozing, Gathering},
};
use crate::limits::{DozeBy, Mode};

impl Machine {
    /// An operator's `sleep`: answered now if it can't be, else when the server has got there.
    pub(super) fn sleep_asked(&mut self, deep: bool) {
        if self.asked.is_some() {
            self.actions.push(Action::Answer(Err(Refusal::Underway)));
            return;
        }
        self.asked = Some(Asked { deep });
        if self.mode == Mode::Observe {
            return self.answer(Err(Refusal::Observe));
        }
        let deep_refusal = || self.deep_gates(Asker::Operator).into_iter().next().map(|gate| gate.refusal);
        match self.stage {
            Stage::Waking => self.answer(Err(Refusal::Waking)),
            Stage::Deep { .. } => self.answer(Ok(())),
            Stage::Dozing { .. } if !deep => self.answer(Ok(())),
            // A page-out that time began is the one that was asked for.
            Stage::Dozing { .. } if self.orders.deep.as_ref().is_some_and(|order| !order.stopping) => {}
            Stage::Dozing { .. } => self.go_deep_or_answer(),
            Stage::Awake if self.orders.doze.as_ref().is_some_and(|doze| doze.cancelled) => {
                self.answer(Err(Refusal::Waking));
            }
            Stage::Awake => match deep.then(deep_refusal).flatten() {
                Some(refusal) => self.answer(Err(refusal)),
                None => self.consider_doze(Asker::Operator),
            },
        }
    }

    /// Asks for evidence if nothing but the evidence can forbid the doze.
    pub(super) fn consider_doze(&mut self, asker: Asker) {
        if self.orders.evidence.is_some() || self.orders.doze.is_some() {
            return;
        }
        if let Some(gate) = self.doze_gates(asker).into_iter().next() {
            if asker == Asker::Operator {
                self.answer(Err(gate.refusal));
            }
            return;
        }
        let run_hook = self.mode != Mode::Observe;
        self.orders.evidence = Some(Gathering { run_hook, stale: false });
        self.actions.push(Action::GatherEvidence { run_hook });
    }

    pub(super) fn evidence(&mut self, evidence: &Evidence) {
        let Some(gathering) = self.orders.evidence.take() else { return };
        self.watchdog_cure.clone_from(&evidence.watchdog_cure);
        let refusal = match self.judge(evidence, &gathering) {
            Ok(way) => return self.doze(way),
            Err(refusal) => refusal,
        };
        if gathering.run_hook && self.stage == Stage::Awake && self.running != Running::Gone {
            self.actions.push(Action::RunAfterWake);
        }
        self.answer(Err(refusal));
    }

    fn judge(&mut self, evidence: &Evidence, gathering: &Gathering) -> Result<Way, Refusal> {
        if gathering.stale {
            return Err(Refusal::SettingsChanged);
        }
        if self.stage != Stage::Awake {
            return Err(Refusal::Waking);
        }
        // Much may have happened while the world was saved.
        let asker = if self.asked.is_some() { Asker::Operator } else { Asker::Time };
        if let Some(gate) = self.doze_gates(asker).into_iter().next() {
            return Err(gate.refusal);
        }
        let on_paper = self.mode == Mode::Observe;
        let throttled = throttle_without_evidence(self.limits.doze_by, self.demotion.as_ref())
            .or_else(|| evidence.throttle(self.last_player, on_paper));
        match throttled {
            None => Ok(Way { by: DozeBy::Freeze, throttled: None }),
            Some(because) if self.seen.as_ref().is_some_and(|seen| seen.cpu_controller) => {
                Ok(Way { by: DozeBy::Throttle, throttled: Some(because) })
            }
            Some(because) => {
                let refusal = Refusal::NoCpuController { because };
                self.doze_hold.after(self.now, refusal.clone());
                Err(refusal)
            }
        }
    }

    fn doze(&mut self, way: Way) {
        let by = way.by;
        self.way = Some(way);
        self.doze_ordered_at = self.now;
        if self.mode == Mode::Observe {
            self.actions.push(Action::WouldDoze { by });
            self.paper = true;
            self.enter(Stage::Dozing { by });
        } else {
            self.orders.doze = Some(Dozing { cancelled: false });
            self.actions.push(Action::EnterDoze { by });
        }
    }

    pub(super) fn doze_done(&mut self) {
        let order = self.orders.doze.take();
        if self.stage != Stage::Awake {
            return; // Waking: the wake that overtook it is carried out after it.
        }
        match (order, &self.way) {
            (Some(Dozing { cancelled: false }), Some(way)) => {
                let by = way.by;
                self.enter(Stage::Dozing { by });
                self.settled_at = self.now;
                self.doze_hold = super::hold::Hold::default();
                match self.asked {
                    Some(Asked { deep: true }) => self.go_deep_or_answer(),
                    _ => self.answer(Ok(())),
                }
            }
            // Woken came first, or nobody ordered it: the server may be asleep behind an open stage.
            (Some(_), _) => self.begin_wake(Cause::Doubt),
            (None, _) if self.mode != Mode::Observe => self.begin_wake(Cause::Doubt),
            (None, _) => {}
        }
    }

    pub(super) fn doze_aborted(&mut self, reason: String) {
        let Some(order) = self.orders.doze.take() else { return };
        if order.cancelled || self.stage != Stage::Awake {
            return;
        }
        self.nobody_waits();
        self.forget_own_freeze();
        let refusal = Refusal::DozeFailed { reason };
        self.doze_hold.after(self.now, refusal.clone());
        if self.running != Running::Gone {
            self.actions.push(Action::RunAfterWake);
        }
        self.answer(Err(refusal));
    }

    fn go_deep_or_answer(&mut self) {
        if let Err(refusal) = self.go_deep(Asker::Operator) {
            self.answer(Err(refusal));
        }
    }

    /// From dozing only.
    pub(super) fn go_deep(&mut self, asker: Asker) -> Result<(), Refusal> {
        let Stage::Dozing { by } = self.stage else { return Ok(()) };
        if let Some(gate) = self.deep_gates(asker).into_iter().next() {
            return Err(gate.refusal);
        }
        if self.paper {
            self.actions.push(Action::WouldGoDeep);
            self.enter(Stage::Deep { by });
        } else {
            self.orders.deep = Some(Deepening { stopping: false });
            self.actions.push(Action::GoDeep);
        }
        Ok(())
    }

    pub(super) fn stop_deep(&mut self) {
        if let Some(order) = &mut self.orders.deep
            && !order.stopping
        {
            order.stopping = true;
            self.actions.push(Action::StopDeep);
        }
    }

    pub(super) fn deep_done(&mut self) {
        match (self.orders.deep.take(), self.stage) {
            (Some(Deepening { stopping: false }), Stage::Dozing { by }) => {
                self.enter(Stage::Deep { by });
                self.deep_hold = super::hold::Hold::default();
                self.answer(Ok(()));
            }
            // It was told to stop, perhaps in a sleep before this one: it doesn't count as deep.
            (Some(Deepening { stopping: true }), Stage::Dozing { .. }) => {
                self.deep_failed("it was told to stop".into());
            }
            _ => {}
        }
    }

    pub(super) fn deep_aborted(&mut self, reason: String) {
        if self.orders.deep.take().is_some() && matches!(self.stage, Stage::Dozing { .. }) {
            self.deep_failed(reason);
        }
    }

    fn deep_failed(&mut self, reason: String) {
        let refusal = Refusal::DeepFailed { reason };
        self.deep_hold.after(self.now, refusal.clone());
        if self.asked.is_some_and(|asked| asked.deep) {
            self.answer(Err(refusal));
        }
    }
}
