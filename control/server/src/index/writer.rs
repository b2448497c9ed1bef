//! After the commit, and only then: a changed row goes to the index, once. A write that fails is counted, never
//! repeated, never rolled back; the server's next change heals it, or the next refresh.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use super::{AT_ONCE, Entry, Index};
use crate::failpoint;

const WAITING: usize = 4096;
const PATIENCE: Duration = Duration::from_millis(200);
/// The next round trip begins no sooner: one change alone is written at once, many together.
const GATHER: Duration = Duration::from_millis(20);

/// The requests' end of it: never waits.
#[derive(Clone)]
pub struct Writer {
    entries: mpsc::Sender<Entry>,
    pub dropped: Arc<AtomicU64>,
}

impl Writer {
    pub fn new() -> (Self, mpsc::Receiver<Entry>) {
        let (entries, receiver) = mpsc::channel(WAITING);
        (Self { entries, dropped: Arc::default() }, receiver)
    }

    pub fn offer(&self, entry: Entry) {
        if self.entries.try_send(entry).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

pub async fn run(index: Index, mut entries: mpsc::Receiver<Entry>, dropped: Arc<AtomicU64>) {
    let mut some = Vec::with_capacity(AT_ONCE);
    while entries.recv_many(&mut some, AT_ONCE).await > 0 {
        failpoint::at("index-before-write");
        let failed = match tokio::time::timeout(PATIENCE, index.put(&some)).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("no answer in time".to_owned()),
        };
        failpoint::at("index-after-write");
        if let Some(error) = failed {
            // All that waits would wait for the same: the index is away.
            let mut lost = some.len() as u64;
            while entries.try_recv().is_ok() {
                lost += 1;
            }
            dropped.fetch_add(lost, Ordering::Relaxed);
            let server = &some[0].server;
            tracing::warn!(%error, lost, server, "the index was not written; a later change heals it");
        }
        if some.len() < AT_ONCE {
            tokio::time::sleep(GATHER).await;
        }
        some.clear();
    }
}
