//! What can go wrong with the database.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot make the folder {path} for the database: {source}")]
    Folder { path: PathBuf, source: io::Error },
    #[error(
        "the database user passes row security (a superuser, or BYPASSRLS); make a role without: \
         CREATE ROLE dormouse LOGIN PASSWORD '…'; CREATE DATABASE dormouse OWNER dormouse"
    )]
    Superuser,
    #[error("a scope that is no tenant's name")]
    BadScope,
    #[error(
        "the database is at migration {found}, this program knows {known}: start the newer program; \
         migrations only go forward"
    )]
    Newer { found: u64, known: u64 },
    #[error(
        "migration {version} was changed after it was applied to this database; \
         start the version that applied it"
    )]
    Altered { version: u64 },
    #[error("column {column} {what}")]
    Content { column: String, what: String },
    #[error("database: {0}")]
    Sql(#[from] sqlx::Error),
    /// The commit that this write was part of.
    #[error("database: {0}")]
    Together(Arc<sqlx::Error>),
}

impl StoreError {
    /// Whether asking again later may help: the database is away or too busy.
    pub fn is_passing(&self) -> bool {
        let error = match self {
            Self::Sql(error) => error,
            Self::Together(error) => error.as_ref(),
            _ => return false,
        };
        match error {
            sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Io(_)
            | sqlx::Error::Tls(_) => true,
            sqlx::Error::Database(error) => match error.code().as_deref() {
                // SQLITE_BUSY, and its kind that is met at the upgrade of a snapshot.
                Some("5" | "517") => true,
                // PostgreSQL, appendix A: class 08 connection, 57P shutdown, 40001 and 40P01 try again, 53 resources.
                Some(code) => {
                    code.starts_with("08")
                        || code.starts_with("57P")
                        || code.starts_with("53")
                        || code == "40001"
                        || code == "40P01"
                }
                None => false,
            },
            _ => false,
        }
    }

    /// Two writers made the same row at once.
    pub fn is_duplicate(&self) -> bool {
        matches!(self, Self::Sql(sqlx::Error::Database(error)) if error.is_unique_violation())
    }
}
