//! What the node tells Prometheus, by the OpenMetrics conventions: base units, `_total`, and labels that are
//! bounded by the configuration (never an address, never a text of a stranger's).
//!
//! One record a server is the truth; every scrape walks the records. So a server that goes takes all its
//! series along, and a method called for a server that is not there changes nothing.

mod collect;
mod serve;
#[cfg(test)]
mod tests;
mod totals;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dormouse_abi::server::Counters;
pub use dormouse_api::exposition::Format;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::pool::Pool;
use crate::preflight::features::Feature;
use crate::sleep::{DozeAborted, Tally};
use crate::stage::{Cause, Refusal, Stage};
pub use serve::{Refresh, ServeError, bind, serve};
use totals::{DoorTotals, Rising};

/// Upper bounds in seconds, from a thaw without memory to bring back to a disk that is no SSD.
const WAKE_BUCKETS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 10.0,
    30.0,
];

type FromStage = [(&'static str, &'static str); 1];

/// The node's metrics. Every method is cheap and may be called from any thread.
pub struct Metrics {
    node: Arc<Mutex<Node>>,
    wakes: Family<FromStage, Histogram, fn() -> Histogram>,
    registry: Registry,
}

#[derive(Debug)]
struct Node {
    version: &'static str,
    servers: BTreeMap<String, Server>,
    doze_aborted: BTreeMap<&'static str, u64>,
    guard_up: bool,
    pool: Pool,
    pool_exhausted: bool,
    deep_write_budget: Option<u64>,
    config_errors: usize,
    unparsed: Rising,
    kernel_features: BTreeMap<&'static str, bool>,
}

#[derive(Debug)]
struct Server {
    profile: String,
    stage: Stage,
    door: DoorTotals,
    /// By cause and the stage it was woken from.
    wakes: BTreeMap<(&'static str, &'static str), u64>,
    queries_answered: u64,
    demotions: u64,
    handed_back: u64,
    swap_written: u64,
    swap_written_today: u64,
    refused: Option<&'static str>,
}

impl Metrics {
    /// `version` is the daemon's own.
    pub fn new(version: &'static str) -> Self {
        let node = Node {
            version,
            servers: BTreeMap::new(),
            doze_aborted: BTreeMap::new(),
            guard_up: false,
            pool: Pool::default(),
            pool_exhausted: false,
            deep_write_budget: None,
            config_errors: 0,
            unparsed: Rising::default(),
            kernel_features: BTreeMap::new(),
        };
        let node = Arc::new(Mutex::new(node));
        let wakes = Family::new_with_constructor((|| Histogram::new(WAKE_BUCKETS)) as fn() -> Histogram);
        let mut registry = Registry::with_prefix("dormouse");
        registry.register_with_unit(
            "wake",
            "Time from the knock to the server's first answer at the door",
            Unit::Seconds,
            wakes.clone(),
        );
        registry.register_collector(Box::new(collect::Collect(Arc::clone(&node))));
        Self { node, wakes, registry }
    }

    /// A server is there, in this stage. To be called first, and whenever stage or profile change.
    pub fn server(&self, server: &str, profile: &str, stage: Stage) {
        let mut node = self.node();
        if let Some(known) = node.servers.get_mut(server) {
            profile.clone_into(&mut known.profile);
            known.stage = stage;
            return;
        }
        let new = Server {
            profile: profile.to_owned(),
            stage,
            door: DoorTotals::default(),
            wakes: BTreeMap::new(),
            queries_answered: 0,
            demotions: 0,
            handed_back: 0,
            swap_written: 0,
            swap_written_today: 0,
            refused: None,
        };
        node.servers.insert(server.to_owned(), new);
    }

    /// The server is no longer configured: its series end.
    pub fn forget(&self, server: &str) {
        self.node().servers.remove(server);
    }

    /// It was woken out of a doze or from deep.
    pub fn woken(&self, server: &str, cause: &Cause, from: Stage) {
        self.change(server, |server| *server.wakes.entry((cause.code(), from.word())).or_default() += 1);
    }

    /// The first answer after a wake passed the door, this long after the packet that woke.
    pub fn answered(&self, from: Stage, after: Duration) {
        self.wakes.get_or_create(&[("from_stage", from.word())]).observe(after.as_secs_f64());
    }

    /// A doze was called off.
    pub fn doze_aborted(&self, why: &DozeAborted) {
        let reason = match why {
            DozeAborted::Knocked => "knocked",
            DozeAborted::Unknown { .. } => "unknown-flow",
            DozeAborted::Waiting { .. } => "waiting",
            DozeAborted::Freeze(_) => "freeze",
            DozeAborted::Throttle(_) => "throttle",
            DozeAborted::Undo(_) => "undo-log",
            DozeAborted::Sockets(_) => "sockets",
            DozeAborted::Asleep => "asleep",
        };
        *self.node().doze_aborted.entry(reason).or_default() += 1;
    }

    /// What the door has counted since it was loaded, and what became of the parked packets since the daemon
    /// started. Absolute values: a value that falls was begun anew, and what it shows is added.
    pub fn door(&self, server: &str, counters: &Counters, tally: Tally) {
        self.change(server, |server| server.door.follow(counters, tally));
    }

    /// Packets that the door could not parse, since it was loaded: an absolute value, as [`Metrics::door`]'s.
    pub fn unparsed(&self, packets: u64) {
        self.node().unparsed.follow(packets);
    }

    /// A query to a sleeper had its answer, without a wake.
    pub fn query_answered(&self, server: &str) {
        self.change(server, |server| server.queries_answered += 1);
    }

    /// A wake hurt the game.
    pub fn demoted(&self, server: &str) {
        self.change(server, |server| server.demotions += 1);
    }

    /// Memory that a sleeper gives back now, in bytes; 0 when it is awake.
    pub fn handed_back(&self, server: &str, bytes: u64) {
        self.change(server, |server| server.handed_back = bytes);
    }

    /// Bytes that were written to swap since the last call.
    pub fn swap_written(&self, server: &str, bytes: u64) {
        self.change(server, |server| server.swap_written += bytes);
    }

    /// Bytes that were written to swap since midnight UTC.
    pub fn swap_written_today(&self, server: &str, bytes: u64) {
        self.change(server, |server| server.swap_written_today = bytes);
    }

    /// Why it is not put to sleep now; `None` = nothing is in its way.
    pub fn sleep_refused(&self, server: &str, why: Option<&Refusal>) {
        self.change(server, |server| server.refused = why.map(Refusal::code));
    }

    /// Whether the guard runs.
    pub fn guard_up(&self, up: bool) {
        self.node().guard_up = up;
    }

    /// As it was drawn up last.
    /// `exhausted`: memory is missing, and nobody can go deeper.
    pub fn pool(&self, pool: &Pool, exhausted: bool) {
        let mut node = self.node();
        (node.pool, node.pool_exhausted) = (*pool, exhausted);
    }

    /// Bytes that page-outs may write on a day; `None` = no limit.
    pub fn deep_write_budget(&self, bytes: Option<u64>) {
        self.node().deep_write_budget = bytes;
    }

    /// Errors in configuration files, at the last reading.
    pub fn config_errors(&self, errors: usize) {
        self.node().config_errors = errors;
    }

    /// What this kernel has and lacks.
    pub fn kernel_features(&self, features: &[Feature]) {
        self.node().kernel_features = features.iter().map(|feature| (feature.name, feature.there)).collect();
    }

    /// All of it, as one text.
    pub fn text(&self, format: Format) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a String takes every write");
        format.of(text)
    }

    fn change(&self, server: &str, change: impl FnOnce(&mut Server)) {
        if let Some(server) = self.node().servers.get_mut(server) {
            change(server);
        }
    }

    fn node(&self) -> MutexGuard<'_, Node> {
        self.node.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("node", &self.node).finish_non_exhaustive()
    }
}
