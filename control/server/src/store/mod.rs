//! The regional database: SQLite or PostgreSQL, one SQL text for both.

mod args;
mod batch;
mod error;
mod last;
mod migrate;
mod row;
mod tx;

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, SqlSafeStr, Transaction};

pub use args::Arg;
pub(crate) use args::args;
use batch::Writers;
pub use error::StoreError;
pub use row::Row;
use tx::On;
pub use tx::Tx;

/// How long a request waits for a connection, and SQLite for its lock, before it is told to come back.
const PATIENCE: Duration = Duration::from_secs(5);
/// Reads of one SQLite file that go on at once.
const SQLITE_READERS: u32 = 4;
/// Connections to PostgreSQL. An instance with more waits in PostgreSQL instead of here.
const POSTGRES_CONNECTIONS: u32 = 16;

const READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Whose rows a transaction may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    Tenant(String),
    /// The region's operators and its own workers.
    Region,
}

impl Scope {
    /// The tenant that alone is seen.
    pub fn tenant(&self) -> Option<&str> {
        match self {
            Self::Tenant(tenant) => Some(tenant),
            Self::Region => None,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Db(Pools);

#[derive(Clone, Debug)]
enum Pools {
    Sqlite { read: SqlitePool, write: Writers },
    Postgres(PgPool),
}

impl Db {
    /// Opens the database and brings it up to date. `postgres://…` or the path of a SQLite file.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let db = if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Self::postgres(url).await?
        } else {
            Self::sqlite(Path::new(url.strip_prefix("sqlite:").unwrap_or(url))).await?
        };
        migrate::run(&db).await?;
        Ok(db)
    }

    async fn sqlite(path: &Path) -> Result<Self, StoreError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|source| StoreError::Folder { path: folder.to_owned(), source })?;
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            .busy_timeout(PATIENCE)
            .journal_mode(SqliteJournalMode::Wal)
            // A commit that was answered is on the disk: WAL's default, NORMAL, may lose the last ones.
            .synchronous(SqliteSynchronous::Full);
        let pool = |most| SqlitePoolOptions::new().max_connections(most).acquire_timeout(PATIENCE);
        let write = pool(1).connect_with(options.clone()).await?;
        let read = pool(SQLITE_READERS).connect_lazy_with(options.pragma("query_only", "ON"));
        Ok(Self(Pools::Sqlite { read, write: Writers::new(write) }))
    }

    async fn postgres(url: &str) -> Result<Self, StoreError> {
        // Every join here is a page of rows with what belongs to each by its key. With many servers the planner would
        // rather read two tables side by side from their beginning, or collect and sort all that a page begins with, for it
        // takes row security for a lottery: half of the rows, it reckons, are not to be seen.
        let options = PgConnectOptions::from_str(url)?.options([
            ("enable_mergejoin", "off"),
            ("enable_hashjoin", "off"),
            ("enable_bitmapscan", "off"),
        ]);
        let pool = PgPoolOptions::new()
            .max_connections(POSTGRES_CONNECTIONS)
            .acquire_timeout(PATIENCE)
            // A broken connection shows at the first statement, and the request is asked again: cheaper than a ping
            // before each.
            .test_before_acquire(false)
            .connect_with(options)
            .await?;
        let passes: (bool,) =
            sqlx::query_as("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user")
                .fetch_one(&pool)
                .await?;
        if passes.0 {
            return Err(StoreError::Superuser);
        }
        Ok(Self(Pools::Postgres(pool)))
    }

    pub const fn is_postgres(&self) -> bool {
        matches!(self.0, Pools::Postgres(_))
    }

    /// A transaction that only reads, all of it from one moment: what belongs together is read together.
    pub async fn read(&self, scope: &Scope) -> Result<Tx, StoreError> {
        match &self.0 {
            Pools::Sqlite { read, .. } => Ok(On::Sqlite(read.begin().await?).into()),
            Pools::Postgres(pool) => Self::begin_postgres(pool, scope, READ).await,
        }
    }

    /// A transaction that may write. SQLite takes its lock here, not at the first write, so that what was read still
    /// holds at the commit.
    pub async fn write(&self, scope: &Scope) -> Result<Tx, StoreError> {
        match &self.0 {
            Pools::Sqlite { write, .. } => Ok(On::SqliteWrite(write.begin().await?).into()),
            Pools::Postgres(pool) => Self::begin_postgres(pool, scope, "BEGIN").await,
        }
    }

    async fn begin_postgres(pool: &PgPool, scope: &Scope, begin: &str) -> Result<Tx, StoreError> {
        let tenant = scope.tenant().unwrap_or("*");
        // One round trip for all. A tenant's name is letters, digits and `-` (names.rs); what isn't never came
        // through a token, and must not come through here.
        if !tenant.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-*".contains(&byte)) {
            return Err(StoreError::BadScope);
        }
        let begin = format!("{begin}; SET LOCAL dormouse.tenant = '{tenant}'");
        let connection = pool.acquire().await?;
        // In a task of its own: who hangs up ends his request, and a BEGIN that was sent but not waited for would be
        // in force for whoever gets this connection next. (sqlx 0.9 rolls back what it knows to have begun.)
        let task = tokio::spawn(Transaction::begin(connection, Some(AssertSqlSafe(begin).into_sql_str())));
        Ok(On::Postgres(task.await.map_err(|_| sqlx::Error::WorkerCrashed)??).into())
    }

    /// Ends the connections; what is under way is finished first.
    pub async fn close(&self) {
        match &self.0 {
            Pools::Sqlite { read, write } => {
                read.close().await;
                write.pool().close().await;
            }
            Pools::Postgres(pool) => pool.close().await,
        }
    }
}
