//! Migrations: embedded, forward only. Several instances may start at once: the first brings the database up to
//! date, the others wait for it.

use sha2::{Digest, Sha256};
use sqlx::AssertSqlSafe;

use super::{Db, Scope, StoreError, Tx, args};

struct Migration {
    version: u64,
    /// For both.
    text: &'static str,
    /// After it, for PostgreSQL alone.
    postgres: &'static str,
}

const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        text: include_str!("../../migrations/0001_registry.sql"),
        postgres: include_str!("../../migrations/0001_registry.postgres.sql"),
    },
    Migration { version: 2, text: include_str!("../../migrations/0002_erasure_waiting.sql"), postgres: "" },
    Migration {
        version: 3,
        text: include_str!("../../migrations/0003_list_by_stage.sql"),
        postgres: include_str!("../../migrations/0003_list_by_stage.postgres.sql"),
    },
];

/// "dormouse" in the eight bytes of an advisory lock's number.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7237954665890966373)";

/// All in one transaction: a program killed halfway leaves the database as it was.
pub async fn run(db: &Db) -> Result<(), StoreError> {
    let mut tx = db.write(&Scope::Region).await?;
    if tx.is_postgres() {
        tx.script(LOCK).await?;
    }
    tx.script("CREATE TABLE IF NOT EXISTS migration (version BIGINT PRIMARY KEY, digest TEXT NOT NULL)")
        .await?;
    let applied = tx.rows("SELECT version, digest FROM migration ORDER BY version", &[]).await?;
    let known = MIGRATIONS.last().map_or(0, |migration| migration.version);
    let mut at = 0;
    for row in &applied {
        at = row.number("version")?;
        let Some(migration) = MIGRATIONS.iter().find(|migration| migration.version == at) else {
            return Err(StoreError::Newer { found: at, known });
        };
        if row.text("digest")? != digest(migration) {
            return Err(StoreError::Altered { version: at });
        }
    }
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > at) {
        apply(&mut tx, migration).await?;
        tracing::info!(version = migration.version, "the database is migrated");
    }
    tx.commit().await
}

async fn apply(tx: &mut Tx, migration: &Migration) -> Result<(), StoreError> {
    let serial = if tx.is_postgres() {
        "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
    } else {
        "INTEGER PRIMARY KEY AUTOINCREMENT"
    };
    tx.script(AssertSqlSafe(migration.text.replace("{serial}", serial))).await?;
    if tx.is_postgres() && !migration.postgres.is_empty() {
        tx.script(migration.postgres).await?;
    }
    tx.execute(
        "INSERT INTO migration (version, digest) VALUES ($1, $2)",
        &args![migration.version, digest(migration)],
    )
    .await?;
    Ok(())
}

fn digest(migration: &Migration) -> String {
    let mut hash = Sha256::new();
    hash.update(migration.text);
    hash.update([0]);
    hash.update(migration.postgres);
    crate::hex(&hash.finalize())
}
