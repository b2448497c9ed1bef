//! A transaction of either database.

use sqlx::{Postgres, SqlSafeStr, Sqlite, Transaction};

use super::{Arg, Row, Scope, StoreError, args, batch};
use crate::failpoint;

/// Dropped without a commit it is rolled back.
pub enum Tx {
    Sqlite(Transaction<'static, Sqlite>),
    SqliteWrite(batch::Write),
    Postgres(Transaction<'static, Postgres>),
}

/// A statement with its values, for either database.
macro_rules! query {
    ($sql:expr, $args:expr) => {
        $args.iter().fold(sqlx::query($sql), |query, arg| match arg {
            Arg::Text(text) => query.bind(text.as_deref()),
            Arg::Int(number) => query.bind(*number),
        })
    };
}

impl Tx {
    /// Runs a statement; how many rows it changed.
    pub async fn execute(&mut self, sql: impl SqlSafeStr, args: &[Arg]) -> Result<u64, StoreError> {
        failpoint::statement();
        Ok(match self {
            Self::Sqlite(tx) => query!(sql, args).execute(&mut **tx).await?.rows_affected(),
            Self::SqliteWrite(tx) => query!(sql, args).execute(&mut **tx).await?.rows_affected(),
            Self::Postgres(tx) => query!(sql, args).execute(&mut **tx).await?.rows_affected(),
        })
    }

    pub async fn rows(&mut self, sql: impl SqlSafeStr, args: &[Arg]) -> Result<Vec<Row>, StoreError> {
        failpoint::statement();
        Ok(match self {
            Self::Sqlite(tx) => {
                query!(sql, args).fetch_all(&mut **tx).await?.into_iter().map(Row::Sqlite).collect()
            }
            Self::SqliteWrite(tx) => {
                query!(sql, args).fetch_all(&mut **tx).await?.into_iter().map(Row::Sqlite).collect()
            }
            Self::Postgres(tx) => {
                query!(sql, args).fetch_all(&mut **tx).await?.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    pub async fn row(&mut self, sql: impl SqlSafeStr, args: &[Arg]) -> Result<Option<Row>, StoreError> {
        failpoint::statement();
        Ok(match self {
            Self::Sqlite(tx) => query!(sql, args).fetch_optional(&mut **tx).await?.map(Row::Sqlite),
            Self::SqliteWrite(tx) => query!(sql, args).fetch_optional(&mut **tx).await?.map(Row::Sqlite),
            Self::Postgres(tx) => query!(sql, args).fetch_optional(&mut **tx).await?.map(Row::Postgres),
        })
    }

    /// Several statements without values, from a migration.
    pub(super) async fn script(&mut self, sql: impl SqlSafeStr) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => {
                sqlx::raw_sql(sql).execute(&mut **tx).await?;
            }
            Self::SqliteWrite(tx) => {
                sqlx::raw_sql(sql).execute(&mut **tx).await?;
            }
            Self::Postgres(tx) => {
                sqlx::raw_sql(sql).execute(&mut **tx).await?;
            }
        }
        Ok(())
    }

    /// Holds what goes by this name until the end of the transaction. SQLite's writers come one by one anyway.
    pub async fn hold(&mut self, name: &str) -> Result<(), StoreError> {
        if self.is_postgres() {
            self.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", &args![name]).await?;
        }
        Ok(())
    }

    /// From here on the transaction sees this scope's rows.
    pub(crate) async fn see(&mut self, scope: &Scope) -> Result<(), StoreError> {
        if self.is_postgres() {
            let sql = "SELECT set_config('dormouse.tenant', $1, true)";
            self.execute(sql, &args![scope.tenant().unwrap_or("*")]).await?;
        }
        Ok(())
    }

    pub const fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    pub async fn commit(self) -> Result<(), StoreError> {
        failpoint::statement();
        match self {
            Self::Sqlite(tx) => tx.commit().await?,
            Self::SqliteWrite(tx) => tx.commit().await?,
            Self::Postgres(tx) => tx.commit().await?,
        }
        Ok(())
    }
}
