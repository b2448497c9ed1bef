//! Events by cursor: what a service without Redis reads, and what the relay sends.

use dormouse_api::registry::bus::BusEvent;
use serde::de::DeserializeOwned;

use crate::clock;
use crate::store::{Row, StoreError, Tx, args};

/// How long events can be read again, and a lost stream be refilled.
pub const KEPT_MS: u64 = 7 * 86_400_000;

fn event<Data: DeserializeOwned>(row: &Row, region: &str) -> Result<BusEvent<Data>, StoreError> {
    Ok(BusEvent {
        specversion: "1.0".to_owned(),
        id: row.text("id")?,
        kind: format!("dormouse.{}", row.text("kind")?),
        source: format!("/regions/{region}"),
        subject: row.opt_text("subject")?,
        time: clock::rfc3339(row.number("created_at")?),
        datacontenttype: "application/json".to_owned(),
        tenant: row.opt_text("tenant")?,
        position: row.number("position")?,
        data: row.json("data")?,
    })
}

/// The events after a position, oldest first; `kind`: only those whose type begins so. Who sends them on asks for them with
/// their data as it was written, a `Box<RawValue>`.
pub async fn after<Data: DeserializeOwned>(
    tx: &mut Tx,
    region: &str,
    position: u64,
    kind: &str,
    most: u32,
) -> Result<Vec<BusEvent<Data>>, StoreError> {
    let kind = kind.strip_prefix("dormouse.").unwrap_or(kind);
    let sql = "SELECT id, kind, subject, tenant, data, created_at, position FROM outbox \
               WHERE position > $1 AND substr(kind, 1, length($2)) = $2 ORDER BY position LIMIT $3";
    tx.rows(sql, &args![position, kind, most]).await?.iter().map(|row| event(row, region)).collect()
}

/// Forgets what is old, and what its sink has taken; the position of the first that is kept.
///
/// One sink: another's row is of a time with or without Redis, and stands still.
pub async fn forget(tx: &mut Tx, sink: &str) -> Result<u64, StoreError> {
    let sql = "DELETE FROM outbox WHERE created_at < $1 \
               AND position <= (SELECT position FROM relay WHERE name = $2)";
    tx.execute(sql, &args![clock::now_ms().saturating_sub(KEPT_MS), sink]).await?;
    // In this order: on PostgreSQL events may be given their positions between the two.
    let last = super::sequence::last(tx).await?;
    let first = tx.row("SELECT MIN(position) AS first FROM outbox", &[]).await?;
    Ok(first.map_or(Ok(None), |row| row.opt_number("first"))?.unwrap_or(last + 1))
}

/// How far a sink has come.
pub async fn position(tx: &mut Tx, sink: &str) -> Result<u64, StoreError> {
    let row = tx.row("SELECT position FROM relay WHERE name = $1", &args![sink]).await?;
    row.map_or(Ok(0), |row| row.number("position"))
}

pub async fn set_position(tx: &mut Tx, sink: &str, position: u64) -> Result<(), StoreError> {
    let sql = "INSERT INTO relay (name, position) VALUES ($1, $2) \
               ON CONFLICT (name) DO UPDATE SET position = excluded.position";
    tx.execute(sql, &args![sink, position]).await?;
    Ok(())
}
