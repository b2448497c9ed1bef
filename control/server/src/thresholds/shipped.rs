//! The game profiles that dormouse ships: a new region's game layer. The same files that a node has built in.

use dormouse_api::Problem;
use dormouse_api::shipped::SHIPPED;

use super::value;
use crate::clock;
use crate::store::{Db, Scope, Tx, args};

/// What a shipped profile's `[limits]` say.
fn limits(text: &str) -> Result<Vec<(String, String)>, Problem> {
    let table: toml::Table =
        toml::from_str(text).map_err(|error| Problem::internal(format!("a shipped profile: {error}")))?;
    let limits = table.get("limits").and_then(toml::Value::as_table).cloned().unwrap_or_default();
    limits
        .into_iter()
        .map(|(key, said)| Ok((key.clone(), value::canonical(&key, &said.to_string())?)))
        .collect()
}

/// Adds the games that the region was never offered. What an operator changed or removed stays so.
pub async fn seed(db: &Db) -> Result<(), Problem> {
    let mut tx = db.write(&Scope::Region).await?;
    for (name, text) in SHIPPED {
        add(&mut tx, name, text).await?;
    }
    tx.commit().await?;
    Ok(())
}

async fn add(tx: &mut Tx, name: &str, text: &str) -> Result<(), Problem> {
    for sql in [
        "INSERT INTO shipped_profile (name) VALUES ($1) ON CONFLICT DO NOTHING",
        "INSERT INTO profile (name, version) VALUES ($1, 1) ON CONFLICT DO NOTHING",
    ] {
        if tx.execute(sql, &args![name]).await? == 0 {
            return Ok(());
        }
    }
    for (key, value) in limits(text)? {
        tx.execute(
            "INSERT INTO threshold (tenant, target, key, value, changed_at) VALUES ('', $1, $2, $3, $4)",
            &args![name, key, value, clock::now_ms()],
        )
        .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_profile_can_be_read() {
        for (name, text) in SHIPPED {
            limits(text).unwrap_or_else(|problem| panic!("{name}: {problem}"));
        }
    }
}
