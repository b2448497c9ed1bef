//! What a control plane tells Prometheus, by the OpenMetrics conventions: base units, `_total`, and labels that are
//! bounded by the program (never a tenant, never a text of a stranger's).
//!
//! Counters are this instance's. What is in the database is read at each scrape and is the same in every instance.

mod collect;
mod seen;
mod serve;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use dormouse_api::exposition::Format;
use dormouse_api::registry::node::CommandState;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::app::Shared;
use crate::clock;
use seen::Seen;
pub use serve::{bind, serve};

type Labels<const N: usize> = [(&'static str, Cow<'static, str>); N];

/// This instance's metrics. Every method is cheap and may be called from any task.
pub struct Metrics {
    requests: Family<Labels<3>, Counter>,
    delivered: Counter,
    expired: Counter,
    answered: Family<Labels<1>, Counter>,
    healed: Counter,
    refresh_failures: Counter,
    read: Arc<Mutex<Read>>,
    registry: Registry,
}

/// What a scrape reads elsewhere.
#[derive(Debug, Default)]
struct Read {
    /// `None`: the database does not answer.
    database: Option<Seen>,
    /// Milliseconds since 1970; `None`: no round ended well yet.
    refreshed_at_ms: Option<u64>,
    /// Where there is an index.
    dropped: Option<Arc<AtomicU64>>,
}

impl Metrics {
    /// `dropped`: the index's writer counts there what it could not write.
    pub fn new(dropped: Option<Arc<AtomicU64>>) -> Self {
        let read = Arc::new(Mutex::new(Read { dropped, ..Read::default() }));
        let mut registry = Registry::with_prefix("dormouse_control");
        let metrics = Self {
            requests: Family::default(),
            delivered: Counter::default(),
            expired: Counter::default(),
            answered: Family::default(),
            healed: Counter::default(),
            refresh_failures: Counter::default(),
            read: read.clone(),
            registry: Registry::default(),
        };
        let Self { requests, delivered, expired, answered, healed, refresh_failures, .. } = &metrics;
        registry.register("requests", "Answered requests, by route and status", requests.clone());
        registry.register("commands_delivered", "Commands handed to their nodes' streams", delivered.clone());
        registry.register("commands_expired", "Commands that no node answered in time", expired.clone());
        registry.register("commands_answered", "Commands that nodes answered, by state", answered.clone());
        registry.register(
            "index_healed",
            "Entries that a refresh of the index found missing or old",
            healed.clone(),
        );
        registry.register(
            "index_refresh_failures",
            "Refreshes of the index that did not come to their end",
            refresh_failures.clone(),
        );
        registry.register_collector(Box::new(collect::Collect(read)));
        Self { registry, ..metrics }
    }

    /// A command's first way to its node.
    pub fn command_delivered(&self) {
        self.delivered.inc();
    }

    pub fn commands_expired(&self, count: u64) {
        self.expired.inc_by(count);
    }

    pub fn command_answered(&self, state: CommandState) {
        self.answered.get_or_create(&[("state", Cow::Borrowed(state.name()))]).inc();
    }

    /// A round of the index ended well; `healed` entries were missing or old.
    pub fn index_refreshed(&self, healed: u64) {
        self.healed.inc_by(healed);
        self.read().refreshed_at_ms = Some(clock::now_ms());
    }

    pub fn index_refresh_failed(&self) {
        self.refresh_failures.inc();
    }

    fn request(&self, method: &Method, route: Option<&MatchedPath>, status: u16) {
        // A method and an address that nobody serves are the asker's words, not ours.
        let method = match method.as_str() {
            "GET" => "GET",
            "HEAD" => "HEAD",
            "POST" => "POST",
            "PUT" => "PUT",
            "PATCH" => "PATCH",
            "DELETE" => "DELETE",
            _ => "other",
        };
        let route = route.map_or(Cow::Borrowed("none"), |route| Cow::Owned(route.as_str().to_owned()));
        let labels =
            [("method", Cow::Borrowed(method)), ("route", route), ("status", Cow::Owned(status.to_string()))];
        self.requests.get_or_create(&labels).inc();
    }

    fn read(&self) -> std::sync::MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of it, as one text.
    pub fn text(&self, format: Format) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a String takes every write");
        format.of(text)
    }
}

/// Counts an answer, whoever gave it.
pub async fn count(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let (method, route) = (request.method().clone(), request.extensions().get::<MatchedPath>().cloned());
    let answer = next.run(request).await;
    app.metrics.request(&method, route.as_ref(), answer.status().as_u16());
    answer
}

/// What the index's writer lost so far.
fn lost(read: &Read) -> Option<u64> {
    read.dropped.as_ref().map(|dropped| dropped.load(Ordering::Relaxed))
}
