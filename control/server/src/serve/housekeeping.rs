//! What grows is cut: answers kept for repeated requests, commands that are over, events that all have read.

use std::sync::Arc;
use std::time::Duration;

use crate::app::App;
use crate::bus::{read, stream, trim};
use crate::erasure;
use crate::registry::commands;
use crate::store::{Scope, StoreError, args};
use crate::{clock, http};

const EVERY: Duration = Duration::from_mins(10);
/// How soon a command that nobody answered is told to have expired.
const COMMANDS: Duration = Duration::from_secs(5);

pub async fn run(app: Arc<App>) {
    let (mut slow, mut quick) = (tokio::time::interval(EVERY), tokio::time::interval(COMMANDS));
    loop {
        let (what, done) = tokio::select! {
            _ = slow.tick() => ("old answers", answers(&app).await),
            _ = quick.tick() => ("late commands", late(&app).await),
        };
        if let Err(error) = done {
            tracing::warn!(%error, "{what} could not be removed; tried again later");
        }
    }
}

async fn late(app: &App) -> Result<(), StoreError> {
    // Most of the time there are none, and a read disturbs nobody.
    let mut tx = app.db.read(&Scope::Region).await?;
    let sql = "SELECT id FROM command WHERE state = 'waiting' AND expires_at <= $1 LIMIT 1";
    let late = tx.row(sql, &args![clock::now_ms()]).await?.is_some();
    tx.commit().await?;
    if !late {
        return Ok(());
    }
    let mut tx = app.db.write(&Scope::Region).await?;
    let expired = commands::expire(&mut tx).await?;
    tx.commit().await?;
    app.metrics.commands_expired(expired);
    Ok(())
}

async fn answers(app: &App) -> Result<(), StoreError> {
    let mut tx = app.db.write(&Scope::Region).await?;
    let before = clock::now_ms().saturating_sub(clock::millis(http::ANSWERS_KEPT));
    tx.execute("DELETE FROM idempotency WHERE created_at < $1", &args![before]).await?;
    let sink = if app.redis.is_some() { stream::SINK } else { erasure::OWN };
    let first = read::forget(&mut tx, sink).await?;
    tx.commit().await?;
    if let Some(client) = &app.redis
        && let Err(error) = trim::run(client, &app.region.name, first).await
    {
        tracing::warn!(%error, "the stream of events was not trimmed; tried again later");
    }
    Ok(())
}
