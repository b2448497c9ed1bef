//! One death, and what must hold after every one: a player gets in, nobody is frozen for longer than the guard
//! allows, the next daemon makes sense of what it finds, and `off` restores every byte.

use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use dormouse_tests::{
    process::{Place, Process},
    stand::Stand,
    steps::Steps,
    topology::Node,
};
use nix::sys::signal::Signal;

use crate::tally;

const NODE: &str = "stale_after = \"200ms\"\nguard_limit = \"2s\"";
/// The guard gives up on nobody for as long as a test takes.
pub const PATIENT_NODE: &str = "stale_after = \"200ms\"\nguard_limit = \"10m\"";
/// Asleep as soon as nobody plays, and as often as the test likes.
const LIMITS: &str = "doze_after = \"1s\"\n\
                          min_awake = \"1ms\"\ngrace_after_start = \"1ms\"\nwakes_per_hour = 100000\n";
/// How long a program may take to come to a step.
const PATIENCE: Duration = Duration::from_secs(30);

/// A stand on which things die.
pub struct Case {
    pub stand: Stand,
    pub steps: Steps,
    /// What the node was before dormouse.
    before: String,
}

impl Case {
    /// Servers that nobody has touched yet, and a guard.
    pub fn prepare(count: u8, more: &str) -> Self {
        Self::prepare_on(NODE, count, more)
    }

    /// With lines of `dormoused.toml` of the caller's.
    pub fn prepare_on(node: &str, count: u8, more: &str) -> Self {
        let by = if more.contains("doze_by") { "" } else { "doze_by = \"freeze\"\n" };
        let limits = format!("{LIMITS}{by}{more}");
        let stand = Stand::prepare_with(Node::create(count).unwrap(), node, &limits).unwrap();
        let before = stand.snapshot().unwrap();
        let mut case = Self { stand, steps: Steps::listen().unwrap(), before };
        case.guard();
        case
    }

    /// Sets a limit of every server, as its owner had before dormouse came.
    pub fn set_limit(&mut self, file: &str, value: &str) {
        for pot in &self.stand.pots {
            std::fs::write(pot.cgroup.path().join(file), value).unwrap();
        }
        self.before = self.stand.snapshot().unwrap();
    }

    /// Runs a guard, as systemd does when one has ended.
    pub fn guard(&mut self) {
        self.stand.daemon.guard = Some(self.spawn("run"));
    }

    /// `dormouse-guard VERB`; it tells its steps.
    pub fn spawn(&self, verb: &str) -> Process {
        let mut command = self.stand.daemon.guard_program(verb).unwrap();
        let (key, value) = self.steps.env();
        command.env(key, value);
        Process::spawn(verb, command, Place::netns(&self.stand.node.netns)).unwrap()
    }

    /// Runs the daemon, which tells its steps, and waits for nothing.
    pub fn launch(&mut self, more: &[(&str, &str)]) {
        let (key, value) = self.steps.env();
        let mut env = vec![(key, value.as_str())];
        env.extend(more);
        self.stand.daemon.launch(&self.stand.node.netns, &env).unwrap();
    }

    /// Runs the daemon until all are watched.
    pub fn start(&mut self) {
        self.launch(&[]);
        self.await_daemon();
    }

    pub fn await_daemon(&self) {
        let watched = || {
            let servers = self.stand.daemon.status()?.servers;
            ensure!(servers.len() == self.stand.pots.len(), "{servers:?}");
            ensure!(servers.iter().all(|server| server.note.is_none()), "{servers:?}");
            Ok(())
        };
        self.stand.wait_until("all are watched", watched).unwrap();
    }

    pub fn kill_daemon(&mut self) {
        self.stand.daemon.end_by(Signal::SIGKILL).unwrap();
    }

    /// Acts again and again until the daemon stands at the step; there it dies. An error of `act` is a player
    /// who did not get in.
    pub fn kill_at(&mut self, step: &str, act: impl Fn(&Stand) -> Result<()> + Sync) {
        let stand = &self.stand;
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let (act, over) = (&act, &over);
            let actor = scope.spawn(move || {
                while !over.load(SeqCst) {
                    act(stand)?;
                    thread::sleep(Duration::from_millis(2));
                }
                anyhow::Ok(())
            });
            let held = self.steps.caught(PATIENCE);
            over.store(true, SeqCst);
            let daemon = stand.daemon.process.as_ref().expect("a daemon runs");
            daemon.signal(Signal::SIGKILL).unwrap();
            assert!(held.is_some(), "nobody ever came to {step}\n{}", stand.daemon.log());
            drop(held);
            tally::point(step);
            // Who was on his way when it died gets in as well.
            if let Err(error) = actor.join().unwrap() {
                tally::refused(&format!("{step}, as it died: {error:#}\n{}", stand.daemon.log()));
            }
        });
        self.stand.daemon.process = None;
    }

    /// A player gets in by TCP.
    pub fn enter(&self, what: &str, index: usize) {
        let started = Instant::now();
        match self.stand.tcp(index) {
            Ok(_) => tally::entered(started.elapsed()),
            Err(error) => tally::refused(&format!("{what}: server {index}: {error:#}")),
        }
    }

    /// With nobody knocking all are awake once the guard has waited long enough.
    pub fn all_awake(&self, what: &str) {
        let awake = || {
            let frozen = self.stand.frozen()?;
            ensure!(frozen.iter().all(|frozen| !frozen), "{frozen:?}");
            Ok(())
        };
        if let Err(error) = self.stand.wait_until(what, awake) {
            tally::stuck(&format!("{what}: {error:#}"));
        }
    }

    /// Everybody gets in by TCP and by UDP, with whatever runs now.
    pub fn all_enter(&self, what: &str) {
        for index in 0..self.stand.pots.len() {
            self.enter(what, index);
            if let Err(error) = self.stand.udp(index) {
                tally::refused(&format!(
                    "{what}: server {index} by UDP: {error:#}\n{}",
                    self.stand.daemon.log()
                ));
            }
        }
    }

    /// With daemon and guard gone, `off` makes the node what it was; then a guard guards again.
    pub fn off_restores(&mut self, what: &str) {
        if self.stand.daemon.process.is_some() {
            self.kill_daemon();
        }
        self.stand.daemon.guard = None;
        let said = self.stand.daemon.guard_command("off", &self.stand.node.netns).unwrap();
        let after = self.stand.snapshot().unwrap();
        tally::restored(&self.before, &after, &format!("{what}: {said}"));
        self.stand.daemon.guard_command("on", &self.stand.node.netns).unwrap();
        self.guard();
    }

    /// All that must hold after a death of the daemon, which is gone.
    pub fn holds(&mut self, what: &str) {
        self.enter(what, 0);
        self.all_awake(what);
        self.start();
        self.all_enter(what);
        self.off_restores(what);
    }
}
