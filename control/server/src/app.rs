//! What every request and every worker shares.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Notify, watch};

use crate::auth::Caller;
use crate::auth::cache::TokenCache;
use crate::auth::keys::KeyRing;
use crate::auth::rate::Rate;
use crate::auth::token::TokenError;
use crate::clock;
use crate::erasure::ledger::Ledger;
use crate::index::writer::Writer;
use crate::index::{Entry, Index};
use crate::metrics::Metrics;
use crate::registry::commands::Addressed;
use crate::registry::servers::Known;
use crate::store::Db;

/// This region.
#[derive(Clone, Debug)]
pub struct Region {
    pub name: String,
    /// Where gateways and players' consoles reach it.
    pub url: String,
}

pub struct App {
    pub db: Db,
    pub region: Region,
    pub keys: KeyRing,
    pub rate: Rate,
    /// Logins, by the source's address: each costs a core 20 ms.
    pub login_rate: Rate,
    /// A change was committed: the outbox holds something.
    pub posted: Notify,
    /// Commands that wait for their nodes; everybody's streams watch it.
    pub waiting: watch::Sender<Arc<Vec<Addressed>>>,
    /// The last position given to an event.
    pub sequenced: watch::Sender<u64>,
    /// Streams end: the program stops.
    pub stopping: watch::Sender<bool>,
    /// Events' streams, where there is one.
    pub redis: Option<redis::Client>,
    index: Option<(Index, Writer)>,
    /// The other regions, the nearest first.
    pub nearest: Vec<String>,
    /// Who must answer an erasure.
    pub erasure_services: Vec<String>,
    /// Where requests for erasure outlive the database.
    pub erasure_ledger: Ledger,
    /// A command was written here: look now, not at the next tick.
    pub ordered: Notify,
    pub metrics: Metrics,
    /// An erasure was asked for here: nodes are told at once.
    pub erasures_asked: watch::Sender<()>,
    tokens: TokenCache,
}

pub type Shared = Arc<App>;

/// What an [`App`] is made of.
pub struct Parts {
    pub db: Db,
    pub region: Region,
    pub keys: KeyRing,
    /// Requests a second for one token.
    pub rate: u32,
    pub redis: Option<redis::Client>,
    pub index: Option<(Index, Writer)>,
    pub nearest: Vec<String>,
    pub erasure_services: Vec<String>,
    pub erasure_ledger: Ledger,
}

/// Logins a second from one address.
const LOGINS: u32 = 2;

impl App {
    pub fn new(parts: Parts) -> Self {
        let Parts { db, region, keys, rate, redis, index, nearest, erasure_services, erasure_ledger } = parts;
        let metrics = Metrics::new(index.as_ref().map(|(_, writer)| writer.dropped.clone()));
        Self {
            db,
            region,
            keys,
            rate: Rate::new(rate),
            login_rate: Rate::new(LOGINS),
            posted: Notify::new(),
            waiting: watch::Sender::default(),
            ordered: Notify::new(),
            erasures_asked: watch::Sender::default(),
            sequenced: watch::Sender::default(),
            stopping: watch::Sender::default(),
            redis,
            index,
            nearest,
            erasure_services,
            metrics,
            erasure_ledger,
            tokens: TokenCache::default(),
        }
    }

    pub fn index(&self) -> Option<&Index> {
        self.index.as_ref().map(|(index, _)| index)
    }

    /// After the commit: the index learns of it when it can.
    pub fn tell_index(&self, known: &Known, deleted: bool) {
        if let Some((_, writer)) = &self.index {
            writer.offer(Entry::of(known, &self.region.url, deleted));
        }
    }

    /// The caller of a good token.
    pub fn caller(&self, token: &str) -> Result<Arc<Caller>, TokenError> {
        let key = TokenCache::key(token);
        let now = clock::now_ms();
        if let Some(caller) = self.tokens.get(&key, now) {
            return Ok(caller);
        }
        let (claims, end) = self.keys.keys().public.verify(&self.region.name, token)?;
        let caller = Arc::new(Caller::of(claims).ok_or(TokenError::NotOurs)?);
        self.tokens.put(key, caller.clone(), end, now);
        Ok(caller)
    }

    /// Reads the keys again; tokens are checked anew.
    pub fn reload_keys(&self) {
        match self.keys.reload() {
            Ok(()) => self.tokens.clear(),
            Err(error) => tracing::error!(%error, "the keys stay as they were"),
        }
    }

    /// Takes one from the caller's bucket.
    pub fn admit(&self, caller: &Caller) -> Result<(), std::time::Duration> {
        self.rate.take(&caller.subject, Instant::now())
    }
}
