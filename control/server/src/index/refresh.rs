//! Every living server's entry, sleepers included, is written again at a third of its time: entries that nobody
//! refreshes fade, and what was lost comes back.

use std::sync::Arc;

use dormouse_api::Problem;
use redis::RedisError;

use super::{AT_ONCE, Entry, Index, Put};
use crate::app::App;
use crate::clock;
use crate::registry::servers;
use crate::store::{Scope, StoreError};

const PAGE: u32 = 500;

#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Registry(#[from] Problem),
    #[error("Redis: {0}")]
    Redis(#[from] RedisError),
}

pub async fn run(app: Arc<App>, index: Index) {
    let mut ticks = tokio::time::interval(index.ttl() / 3);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = all(&app, &index).await {
            app.metrics.index_refresh_failed();
            tracing::warn!(%error, "the index was not refreshed; done again at the next round");
        }
    }
}

/// Writes the entry of each server; how many were missing or old.
pub async fn all(app: &App, index: &Index) -> Result<u64, IndexError> {
    let (mut after, mut healed) = (None, 0);
    loop {
        let mut tx = app.db.read(&Scope::Region).await?;
        let page = servers::all_after(&mut tx, &app.region.name, after.as_ref(), PAGE).await?;
        tx.commit().await?;
        let faded = |known: &servers::Known, deleted: bool| {
            deleted && clock::now_ms().saturating_sub(known.server.changed_at_ms) > clock::millis(index.ttl())
        };
        let entries: Vec<Entry> = page
            .iter()
            .filter(|(known, deleted)| !faded(known, *deleted))
            .map(|(known, deleted)| Entry::of(known, &app.region.url, *deleted))
            .collect();
        for some in entries.chunks(AT_ONCE) {
            healed += index.put(some).await?.into_iter().filter(|put| *put == Put::Written).count() as u64;
        }
        match page.last() {
            Some((known, _)) if page.len() == PAGE as usize => {
                after = Some(crate::names::ServerName::parse("name", &known.server.name)?);
            }
            _ => {
                app.metrics.index_refreshed(healed);
                return Ok(healed);
            }
        }
    }
}
