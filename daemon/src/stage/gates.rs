//! What stands between a server and its sleep: every closed gate, the one that tells the operator most
//! first, and the time at which it opens by itself.

use std::time::Duration;

use super::{Asker, Ceiling, Machine, QUIET, Refusal, Running, Stage, evidence};
use crate::limits::{DozeBy, Floor, Mode};

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Gate {
    pub refusal: Refusal,
    /// `None` = not by time alone.
    pub until: Option<Duration>,
}

/// When the last of these gates opens by time alone; `Some(0)` = all are open.
pub(super) fn opens_at(gates: &[Gate]) -> Option<Duration> {
    gates.iter().map(|gate| gate.until).try_fold(Duration::ZERO, |latest, until| Some(latest.max(until?)))
}

impl Machine {
    /// What keeps an awake server awake. Evidence is judged later, when all of these are open.
    pub(super) fn doze_gates(&self, asker: Asker) -> Vec<Gate> {
        let mut gates: Vec<Gate> =
            self.rule_against_sleep().into_iter().map(|refusal| Gate { refusal, until: None }).collect();
        // A kept server's end is known; rule_against_sleep doesn't say it.
        if let [Gate { refusal: Refusal::Kept { .. }, until }] = &mut gates[..] {
            *until = self.kept.as_ref().and_then(|kept| kept.until);
        }
        if asker != Asker::Operator
            && let Some(held) = self.doze_hold.held.as_ref().filter(|held| held.until > self.now)
        {
            // Before all but the rules: what failed last tells more than the times it had waited for.
            gates.push(Gate { refusal: held.refusal.clone(), until: Some(held.until) });
        }
        let mut closed = |refusal, until| gates.push(Gate { refusal, until });

        match &self.seen {
            None => closed(Refusal::NotObserved, None),
            Some(seen) => {
                if seen.frozen && self.orders.doze.is_none() {
                    closed(Refusal::FrozenByOther, None);
                }
                let forced = evidence::throttle_without_evidence(self.limits.doze_by, self.demotion.as_ref());
                if let (Some(because), false) = (forced, seen.cpu_controller) {
                    closed(Refusal::NoCpuController { because }, None);
                }
                if let Some(limit) = self.limits.busy_cpu_percent
                    && seen.cpu_percent > limit
                {
                    closed(Refusal::Busy { percent: seen.cpu_percent, limit }, None);
                }
            }
        }
        if self.orders.canary {
            closed(Refusal::CanaryRunning, None);
        }
        if !self.spoofable
            && let Some(until) = self.wakes_spent()
        {
            closed(
                Refusal::WakesSpent { per_hour: self.limits.wakes_per_hour },
                Some(until).filter(|until| *until < Duration::MAX),
            );
        }
        for (refusal, until) in self.waiting_times(asker) {
            if until > self.now {
                closed(refusal, Some(until));
            }
        }
        gates
    }

    /// An operator's `sleep` skips the waiting times, except the grace after a start (a server that still
    /// loads is not known to work) and a short quiet, lest it freeze somebody who is playing.
    fn waiting_times(&self, asker: Asker) -> Vec<(Refusal, Duration)> {
        let limits = &self.limits;
        let started = (
            Refusal::JustStarted { grace: limits.grace_after_start },
            self.started_at.saturating_add(limits.grace_after_start),
        );
        if asker == Asker::Operator {
            let quiet = QUIET.min(limits.doze_after);
            let player =
                self.last_player.map(|player| (Refusal::PlayerHere { quiet }, player.saturating_add(quiet)));
            return player.into_iter().chain([started]).collect();
        }
        // A player who was here before the door was attached has not been seen yet.
        let idle_since = self.last_player.unwrap_or_default().max(self.watched_since).max(self.started_at);
        let woken = self.last_wake.map(|wake| {
            (Refusal::MinAwake { min_awake: limits.min_awake }, wake.saturating_add(limits.min_awake))
        });
        [(Refusal::NotIdle { doze_after: limits.doze_after }, idle_since.saturating_add(limits.doze_after))]
            .into_iter()
            .chain(woken)
            .chain([started])
            .collect()
    }

    pub(super) fn wakes_spent(&self) -> Option<Duration> {
        self.wakes.spent_until(self.now, self.limits.wakes_per_hour)
    }

    /// What forbids sleep by rule, asleep or awake: a sleeping server is woken for it.
    pub(super) fn rule_against_sleep(&self) -> Option<Refusal> {
        match self.running {
            Running::Gone => return Some(Refusal::Gone),
            Running::Stopping => return Some(Refusal::Stopping),
            Running::Yes => {}
        }
        if let Some(kept) = &self.kept {
            return Some(Refusal::Kept { owner: kept.owner.clone(), reason: kept.reason.clone() });
        }
        if self.limits.floor == Floor::Awake {
            return Some(Refusal::FloorAwake);
        }
        if let Some(demotion) = &self.demotion
            && demotion.ceiling == Ceiling::Awake
        {
            return Some(Refusal::Demoted { reason: demotion.reason.clone(), cure: demotion.cure.clone() });
        }
        self.seen.as_ref().and_then(|seen| seen.obstacle.clone()).map(Refusal::Obstacle)
    }

    /// What forbids this very sleep, entered under rules that may have changed since.
    pub(super) fn rule_against_this_sleep(&self, by: DozeBy) -> Option<Refusal> {
        if self.mode == Mode::Observe && !self.paper {
            return Some(Refusal::Observe);
        }
        if let Some(refusal) = self.rule_against_sleep() {
            return Some(refusal);
        }
        if let Some(demotion) = &self.demotion
            && !demotion.allows(by)
        {
            return Some(Refusal::Demoted { reason: demotion.reason.clone(), cure: demotion.cure.clone() });
        }
        if by == DozeBy::Freeze && self.limits.doze_by == DozeBy::Throttle {
            return Some(Refusal::FreezeForbidden);
        }
        matches!(self.stage, Stage::Deep { .. }).then(|| self.rule_against_deep()).flatten()
    }

    fn rule_against_deep(&self) -> Option<Refusal> {
        match (self.mode, self.limits.floor, self.limits.deep_after) {
            (Mode::Doze, _, _) => Some(Refusal::ModeDoze),
            (_, Floor::Awake | Floor::Dozing, _) => Some(Refusal::FloorDozing),
            (_, _, None) => Some(Refusal::NeverDeep),
            (Mode::Observe | Mode::Full, Floor::Deep, Some(_)) => None,
        }
    }

    /// What keeps a dozing server from going deep.
    pub(super) fn deep_gates(&self, asker: Asker) -> Vec<Gate> {
        let mut gates = Vec::new();
        let mut closed = |refusal, until| gates.push(Gate { refusal, until });
        if let Some(refusal) = self.rule_against_deep() {
            closed(refusal, None);
        }
        // A node without memory for the next wake asks for no budget.
        if asker != Asker::Pool
            && let Some(obstacle) = self.seen.as_ref().and_then(|seen| seen.deep_obstacle.clone())
        {
            closed(Refusal::Obstacle(obstacle), None);
        }
        if self.orders.deep.is_some() {
            closed(Refusal::Underway, None);
        }
        if let Some(until) = self.wakes_spent() {
            closed(
                Refusal::WakesSpent { per_hour: self.limits.wakes_per_hour },
                Some(until).filter(|until| *until < Duration::MAX),
            );
        }
        if asker != Asker::Operator
            && let Some(held) = self.deep_hold.held.as_ref().filter(|held| held.until > self.now)
        {
            closed(held.refusal.clone(), Some(held.until));
        }
        if asker == Asker::Time
            && let Some(deep_after) = self.limits.deep_after
            && self.since.saturating_add(deep_after) > self.now
        {
            closed(Refusal::NotLongDozing { deep_after }, Some(self.since.saturating_add(deep_after)));
        }
        gates
    }
}
