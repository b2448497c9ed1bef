//! Gives committed events their positions.

use std::sync::Arc;
use std::time::Duration;

use crate::app::App;
use crate::failpoint;
use crate::store::{Scope, StoreError, Tx, args};

/// Writes of this long are sequenced in one transaction: SQLite has one writer, and each commit is a write to disk.
const GATHER: Duration = Duration::from_millis(50);
/// What another instance committed is seen after this.
const LOOK: Duration = Duration::from_secs(1);
const BATCH: u32 = 1000;

/// Sequences what is posted, and tells the readers.
pub async fn run(app: Arc<App>) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = app.posted.notified() => tokio::time::sleep(GATHER).await,
        }
        match sequence(&app).await {
            Ok(last) => {
                app.sequenced.send_if_modified(|known| std::mem::replace(known, last) != last);
            }
            Err(error) => tracing::warn!(%error, "events wait for their positions; tried again"),
        }
    }
}

/// The last position that was given.
pub async fn last(tx: &mut Tx) -> Result<u64, StoreError> {
    let row = tx.row("SELECT position FROM relay WHERE name = 'sequencer'", &[]).await?;
    row.map_or(Ok(0), |row| row.number("position"))
}

async fn sequence(app: &App) -> Result<u64, StoreError> {
    loop {
        let mut tx = app.db.read(&Scope::Region).await?;
        let new = tx.row("SELECT entry FROM outbox WHERE position IS NULL LIMIT 1", &[]).await?;
        let at = last(&mut tx).await?;
        tx.commit().await?;
        if new.is_none() {
            return Ok(at);
        }
        let mut tx = app.db.write(&Scope::Region).await?;
        failpoint::arm("sequence");
        // Whoever holds this row is the one sequencer.
        let sql = "UPDATE relay SET position = position WHERE name = 'sequencer' RETURNING position";
        let at = tx.row(sql, &[]).await?.map_or(Ok(0), |row| row.number("position"))?;
        let given = tx
            .execute(
                "UPDATE outbox SET position = $1 + n.place FROM (SELECT entry, ROW_NUMBER() OVER \
                 (ORDER BY entry) AS place FROM outbox WHERE position IS NULL ORDER BY entry LIMIT $2) AS n \
                 WHERE outbox.entry = n.entry",
                &args![at, BATCH],
            )
            .await?;
        let sql = "UPDATE relay SET position = $1 WHERE name = 'sequencer'";
        tx.execute(sql, &args![at + given]).await?;
        tx.commit().await?;
        failpoint::at("sequence-after-commit");
        if given < u64::from(BATCH) {
            return Ok(at + given);
        }
    }
}
