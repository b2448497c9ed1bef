//! After a restore from a backup: what was erased since is back, and time has run backwards for everybody who reads.
//!
//! The ledger beside the database still has the requests. One that the database doesn't know gives a restored one away;
//! `serve --restored` says it where no request came since the backup.

use std::collections::HashSet;

use dormouse_api::Problem;

use super::ledger::{Ledger, LedgerError};
use super::{ask, insert, nodes};
use crate::store::{Db, Scope, StoreError, Tx, args};

/// Positions of events and sequences of servers that were given after the backup are known to readers, to Redis and to
/// the index. This many further on none was given: more events than a region has in years, and JavaScript's whole
/// numbers (2^53) still hold two million restores.
const JUMP: u64 = 1 << 32;

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Registry(#[from] Problem),
}

/// Asks again, if the database was restored.
pub async fn run(db: &Db, ledger: &Ledger, services: &[String], restored: bool) -> Result<(), RestoreError> {
    let mut tx = db.write(&Scope::Region).await?;
    // Of several instances that start at once one does it.
    tx.hold("restore").await?;
    let known = tx.rows("SELECT id FROM erasure", &[]).await?;
    let known: HashSet<String> = known.iter().map(|row| row.text("id")).collect::<Result<_, _>>()?;
    let mut forgotten = ledger.read()?;
    forgotten.retain(|entry| !known.contains(&entry.request));
    if forgotten.is_empty() && !restored {
        return Ok(());
    }
    go_on_after_all_that_was_given(&mut tx).await?;
    // Open in the backup, perhaps done since: the event of that is told, but not in here.
    let mut open = 0;
    let sql = "SELECT id, subject, tenant FROM erasure WHERE completed_at IS NULL ORDER BY id";
    for row in tx.rows(sql, &[]).await? {
        let id = row.text("id")?;
        nodes::ask(&mut tx, &id).await?;
        ask(&mut tx, &id, &row.text("subject")?, row.opt_text("tenant")?.as_deref())?;
        open += 1;
    }
    for entry in &forgotten {
        insert(&mut tx, entry, services).await?;
    }
    tx.commit().await?;
    tracing::warn!(
        forgotten = forgotten.len(),
        open,
        "the database was restored from a backup: erasures since then are asked again"
    );
    Ok(())
}

async fn go_on_after_all_that_was_given(tx: &mut Tx) -> Result<(), StoreError> {
    tx.execute("UPDATE relay SET position = position + $1 WHERE name = 'sequencer'", &args![JUMP]).await?;
    tx.execute("UPDATE server SET sequence = sequence + $1", &args![JUMP]).await?;
    Ok(())
}
