//! A transaction of either database.

use sqlx::{AssertSqlSafe, Postgres, SqlSafeStr, Sqlite, Transaction};

use super::last::Last;
use super::{Arg, Row, Scope, StoreError, args, batch};
use crate::failpoint;

/// Dropped without a commit it is rolled back.
pub struct Tx {
    on: On,
    last: Last,
}

pub(super) enum On {
    Sqlite(Transaction<'static, Sqlite>),
    SqliteWrite(batch::Write),
    Postgres(Transaction<'static, Postgres>),
}

impl From<On> for Tx {
    fn from(on: On) -> Self {
        Self { on, last: Last::default() }
    }
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
        Ok(match &mut self.on {
            On::Sqlite(tx) => query!(sql, args).execute(&mut **tx).await?.rows_affected(),
            On::SqliteWrite(tx) => query!(sql, args).execute(&mut **tx).await?.rows_affected(),
            On::Postgres(tx) => query!(sql, args).execute(&mut **tx).await?.rows_affected(),
        })
    }

    pub async fn rows(&mut self, sql: impl SqlSafeStr, args: &[Arg]) -> Result<Vec<Row>, StoreError> {
        failpoint::statement();
        Ok(match &mut self.on {
            On::Sqlite(tx) => {
                query!(sql, args).fetch_all(&mut **tx).await?.into_iter().map(Row::Sqlite).collect()
            }
            On::SqliteWrite(tx) => {
                query!(sql, args).fetch_all(&mut **tx).await?.into_iter().map(Row::Sqlite).collect()
            }
            On::Postgres(tx) => {
                query!(sql, args).fetch_all(&mut **tx).await?.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    pub async fn row(&mut self, sql: impl SqlSafeStr, args: &[Arg]) -> Result<Option<Row>, StoreError> {
        failpoint::statement();
        Ok(match &mut self.on {
            On::Sqlite(tx) => query!(sql, args).fetch_optional(&mut **tx).await?.map(Row::Sqlite),
            On::SqliteWrite(tx) => query!(sql, args).fetch_optional(&mut **tx).await?.map(Row::Sqlite),
            On::Postgres(tx) => query!(sql, args).fetch_optional(&mut **tx).await?.map(Row::Postgres),
        })
    }

    /// Several statements without values, from a migration.
    pub(super) async fn script(&mut self, sql: impl SqlSafeStr) -> Result<(), StoreError> {
        match &mut self.on {
            On::Sqlite(tx) => {
                sqlx::raw_sql(sql).execute(&mut **tx).await?;
            }
            On::SqliteWrite(tx) => {
                sqlx::raw_sql(sql).execute(&mut **tx).await?;
            }
            On::Postgres(tx) => {
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
        // By the scope that they were given under.
        self.write_last().await?;
        if self.is_postgres() {
            let sql = "SELECT set_config('dormouse.tenant', $1, true)";
            self.execute(sql, &args![scope.tenant().unwrap_or("*")]).await?;
        }
        Ok(())
    }

    pub const fn is_postgres(&self) -> bool {
        matches!(self.on, On::Postgres(_))
    }

    /// A row that nothing in this transaction reads: it is written at its end, on PostgreSQL in one round trip with all
    /// others that could wait.
    pub fn insert_last(&mut self, table: &'static str, columns: &'static str, values: &[Arg]) {
        self.last.add(table, columns, values);
    }

    /// Now, and not only at the commit: what comes after it can rely on these rows.
    pub async fn write_last(&mut self) -> Result<(), StoreError> {
        for (sql, values) in std::mem::take(&mut self.last).statements(self.is_postgres()) {
            self.execute(AssertSqlSafe(sql), &values).await?;
        }
        Ok(())
    }

    pub async fn commit(mut self) -> Result<(), StoreError> {
        self.write_last().await?;
        failpoint::statement();
        match self.on {
            On::Sqlite(tx) => tx.commit().await?,
            On::SqliteWrite(tx) => tx.commit().await?,
            On::Postgres(tx) => tx.commit().await?,
        }
        Ok(())
    }
}
