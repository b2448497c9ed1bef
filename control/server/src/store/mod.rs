//! The regional database: SQLite or PostgreSQL, one SQL text for both.

mod args;
mod error;
mod migrate;
mod row;
mod tx;

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

pub use args::Arg;
pub(crate) use args::args;
pub use error::StoreError;
pub use row::Row;
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
    /// One writer: SQLite has one anyway, and a queue here is fair.
    Sqlite {
        read: SqlitePool,
        write: SqlitePool,
    },
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
        Ok(Self(Pools::Sqlite { read, write }))
    }

    async fn postgres(url: &str) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url)?;
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
            Pools::Sqlite { read, .. } => Ok(Tx::Sqlite(read.begin().await?)),
            Pools::Postgres(pool) => Self::begin_postgres(pool, scope, READ).await,
        }
    }

    /// A transaction that may write. SQLite takes its lock here, not at the first write, so that what was read still
    /// holds at the commit.
    pub async fn write(&self, scope: &Scope) -> Result<Tx, StoreError> {
        match &self.0 {
            Pools::Sqlite { write, .. } => Ok(Tx::Sqlite(write.begin_with("BEGIN IMMEDIATE").await?)),
            Pools::Postgres(pool) => Self::begin_postgres(pool, scope, "BEGIN").await,
        }
    }

    async fn begin_postgres(pool: &PgPool, scope: &Scope, begin: &str) -> Result<Tx, StoreError> {
        let tenant = scope.tenant().unwrap_or("*");
        // One round trip for both. A tenant's name is letters, digits and `-` (names.rs); what isn't never came
        // through a token, and must not come through here.
        if !tenant.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-*".contains(&byte)) {
            return Err(StoreError::BadScope);
        }
        let begin = format!("{begin}; SET LOCAL dormouse.tenant = '{tenant}'");
        Ok(Tx::Postgres(pool.begin_with(AssertSqlSafe(begin)).await?))
    }

    /// Ends the connections; what is under way is finished first.
    pub async fn close(&self) {
        match &self.0 {
            Pools::Sqlite { read, write } => {
                read.close().await;
                write.close().await;
            }
            Pools::Postgres(pool) => pool.close().await,
        }
    }
}
