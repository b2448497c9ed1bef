//! A row of either database. A column that isn't there or has another type is a bug, told by its name.

use serde::de::DeserializeOwned;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;

use super::StoreError;

pub enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    pub fn text(&self, column: &str) -> Result<String, StoreError> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    pub fn opt_text(&self, column: &str) -> Result<Option<String>, StoreError> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    fn int(&self, column: &str) -> Result<Option<i64>, StoreError> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    /// A number; none is negative here.
    pub fn number(&self, column: &str) -> Result<u64, StoreError> {
        let number = self.opt_number(column)?;
        number.ok_or_else(|| StoreError::Content { column: column.to_owned(), what: "is NULL".to_owned() })
    }

    pub fn opt_number(&self, column: &str) -> Result<Option<u64>, StoreError> {
        let number = self.int(column)?;
        number
            .map(u64::try_from)
            .transpose()
            .map_err(|_| StoreError::Content { column: column.to_owned(), what: "is negative".to_owned() })
    }

    /// A value that is kept as JSON.
    pub fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T, StoreError> {
        parse(column, &self.text(column)?)
    }

    pub fn opt_json<T: DeserializeOwned>(&self, column: &str) -> Result<Option<T>, StoreError> {
        self.opt_text(column)?.map(|text| parse(column, &text)).transpose()
    }

    /// One of a wire type's words, as serde writes it.
    pub fn word<T: DeserializeOwned>(&self, column: &str) -> Result<T, StoreError> {
        let word = self.text(column)?;
        serde_json::from_value(serde_json::Value::String(word))
            .map_err(|error| StoreError::Content { column: column.to_owned(), what: error.to_string() })
    }
}

fn parse<T: DeserializeOwned>(column: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::Content { column: column.to_owned(), what: error.to_string() })
}
