//! What a scrape asks of the database: a few rows by index, in one reading transaction.

use crate::clock;
use crate::store::{Db, Row, Scope, StoreError, args};

/// Events that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    pub events: u64,
    /// Since when the oldest of them waits; 0 with none.
    pub oldest_ms: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erasures {
    pub open: u64,
    pub overdue: u64,
    /// Milliseconds since 1970; `None`: none is open.
    pub nearest_deadline_at_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// When it was looked at, milliseconds since 1970.
    pub at_ms: u64,
    /// Committed events without a position: nobody can read them yet.
    pub unsequenced: Waiting,
    /// Events that Redis has not taken; `None`: there is no Redis.
    pub unsent: Option<Waiting>,
    pub erasures: Erasures,
    /// Commands that wait for their nodes.
    pub commands: u64,
}

pub async fn look(db: &Db, with_redis: bool) -> Result<Seen, StoreError> {
    let now = clock::now_ms();
    let age = |at: Option<u64>| at.map_or(0, |at| now.saturating_sub(at));
    let mut tx = db.read(&Scope::Region).await?;
    let sql = "SELECT COUNT(*) AS events, MIN(created_at) AS oldest FROM outbox WHERE position IS NULL";
    let row = tx.row(sql, &[]).await?;
    let unsequenced = Waiting {
        events: number(row.as_ref(), "events")?.unwrap_or(0),
        oldest_ms: age(number(row.as_ref(), "oldest")?),
    };
    let unsent = if with_redis {
        let sql = "SELECT s.position - COALESCE(r.position, 0) AS events, (SELECT created_at FROM outbox \
                   WHERE position > COALESCE(r.position, 0) ORDER BY position LIMIT 1) AS oldest FROM relay s \
                   LEFT JOIN relay r ON r.name = 'redis' WHERE s.name = 'sequencer'";
        let row = tx.row(sql, &[]).await?;
        // The mark may be ahead of a sequencer that was restored from an older backup.
        let events = match &row {
            Some(row) => row.opt_number("events").unwrap_or(Some(0)).unwrap_or(0),
            None => 0,
        };
        Some(Waiting { events, oldest_ms: age(number(row.as_ref(), "oldest")?) })
    } else {
        None
    };
    let sql = "SELECT COUNT(*) AS open, COUNT(CASE WHEN deadline_at < $1 THEN 1 END) AS overdue, \
               MIN(deadline_at) AS nearest FROM erasure WHERE completed_at IS NULL";
    let row = tx.row(sql, &args![now]).await?;
    let erasures = Erasures {
        open: number(row.as_ref(), "open")?.unwrap_or(0),
        overdue: number(row.as_ref(), "overdue")?.unwrap_or(0),
        nearest_deadline_at_ms: number(row.as_ref(), "nearest")?,
    };
    let sql = "SELECT COUNT(*) AS waiting FROM command WHERE state = 'waiting' AND expires_at > $1";
    let row = tx.row(sql, &args![now]).await?;
    let commands = number(row.as_ref(), "waiting")?.unwrap_or(0);
    tx.commit().await?;
    Ok(Seen { at_ms: now, unsequenced, unsent, erasures, commands })
}

fn number(row: Option<&Row>, column: &str) -> Result<Option<u64>, StoreError> {
    row.map_or(Ok(None), |row| row.opt_number(column))
}
