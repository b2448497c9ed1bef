//! The machine as its caller sees it: events in, actions and `why` out.

mod every_pair;
mod exceptions;
mod model;
mod random;
mod rules;

use std::time::Duration;

use dormouse_packet::Class;

use super::*;
use crate::limits::{DozeBy, FirstSpeaker, Floor, Limits, Mode};

const WOKEN: [Action; 2] = [Action::RunAfterWake, Action::StartCanary];

fn wake(cause: Cause) -> [Action; 1] {
    [Action::Wake { cause }]
}

const PLAYER: Cause = Cause::Player { from: None };

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Doze after 10 minutes, deep 20 minutes later, 5 minutes awake, 10 minutes of grace.
fn limits() -> Limits {
    Limits {
        doze_after: secs(600),
        deep_after: Some(secs(1200)),
        floor: Floor::Deep,
        doze_by: DozeBy::Freeze,
        throttle_percent: 5,
        resident_min: 0,
        min_awake: secs(300),
        grace_after_start: secs(600),
        wakes_per_hour: 12,
        patience: secs(3),
        query_every: secs(2),
        query_thaw: Duration::from_millis(100),
        first_speaker: FirstSpeaker::Client,
        busy_cpu_percent: Some(50),
        ..crate::config::built_in()
    }
}

fn setup(mode: Mode) -> Setup {
    Setup { mode, limits: limits(), spoofable: false, started_at: Duration::ZERO, demotion: None }
}

fn idle() -> Observation {
    Observation { cpu_controller: true, ..Observation::default() }
}

fn frozen() -> Observation {
    Observation { frozen: true, gate_shut: true, ..idle() }
}

fn good() -> Evidence {
    Evidence {
        save: Save::NotNeeded,
        watchdog: Watchdog::Off,
        outbound: Outbound::None,
        watchdog_cure: Some("max-tick-time=-1".into()),
    }
}

fn bad() -> Evidence {
    Evidence { watchdog: Watchdog::On, ..good() }
}

fn knock(class: Class) -> Event {
    Event::Knock { class, from: None }
}

fn kept(until: Option<Duration>) -> Kept {
    Kept { owner: "anna".into(), reason: "LAN party".into(), until }
}

/// A machine and its clock.
struct Bench {
    machine: Machine,
    now: Duration,
}

impl Bench {
    /// Made at 0 s; the clock stands at 1,000 s: idle long enough for all.
    fn new(mode: Mode) -> Self {
        Self::of(setup(mode))
    }

    fn of(setup: Setup) -> Self {
        Self { machine: Machine::new(Duration::ZERO, setup), now: secs(1000) }
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        self.now += Duration::from_millis(1);
        self.machine.handle(self.now, event)
    }

    fn later(&mut self, seconds: u64, event: Event) -> Vec<Action> {
        self.now += secs(seconds);
        self.tell(event)
    }

    fn look(&mut self) -> Vec<Action> {
        self.tell(Event::Observed(idle()))
    }

    /// An awake, idle server, put to doze.
    fn doze(&mut self) {
        assert!(matches!(self.look()[..], [Action::GatherEvidence { run_hook: true }]));
        let actions = self.tell(Event::Evidence(good()));
        assert_eq!(actions, [Action::EnterDoze { by: DozeBy::Freeze }]);
        assert_eq!(self.tell(Event::DozeDone), []);
        assert_eq!(self.machine.stage(), Stage::Dozing { by: DozeBy::Freeze });
    }

    fn deep(&mut self) {
        self.doze();
        assert_eq!(self.later(1200, Event::Observed(frozen())), [Action::GoDeep]);
        assert_eq!(self.tell(Event::DeepDone { bytes: 1 << 30 }), []);
        assert_eq!(self.machine.stage(), Stage::Deep { by: DozeBy::Freeze });
    }

    /// Why it stays awake.
    fn refusal(&self) -> &'static str {
        match self.machine.why().reason {
            Reason::StaysAwake(refusal) => refusal.code(),
            other => panic!("not refused: {other:?}"),
        }
    }
}

/// The answer to an operator's `sleep` among these actions.
fn refused(actions: &[Action]) -> &'static str {
    match actions {
        [.., Action::Answer(Err(refusal))] => refusal.code(),
        other => panic!("no refusal in {other:?}"),
    }
}
