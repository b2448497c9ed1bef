//! The regions that are there: each says where it is reached and how much room its roomiest node has.

use std::sync::Arc;
use std::time::Duration;

use redis::RedisError;
use serde::{Deserialize, Serialize};

use super::Index;
use super::refresh::IndexError;
use crate::app::App;
use crate::registry::nodes;
use crate::store::Scope;

const EVERY: Duration = Duration::from_secs(10);
/// Six words missed: it is away.
const LIVES: Duration = Duration::from_mins(1);
const PREFIX: &str = "dormouse:region:";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownRegion {
    pub name: String,
    pub url: String,
    /// What the largest server may need that still finds room.
    pub room_bytes: u64,
}

pub async fn run(app: Arc<App>, index: Index) {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        if let Err(error) = tell(&app, &index).await {
            tracing::debug!(%error, "the other regions were not told of this one");
        }
    }
}

pub async fn tell(app: &App, index: &Index) -> Result<(), IndexError> {
    let mut tx = app.db.read(&Scope::Region).await?;
    let room_bytes = nodes::roomiest(&mut tx).await?.map_or(0, |(_, free)| free);
    tx.commit().await?;
    let known = KnownRegion { name: app.region.name.clone(), url: app.region.url.clone(), room_bytes };
    redis::cmd("SET")
        .arg(format!("{PREFIX}{}", known.name))
        .arg(serde_json::to_string(&known).unwrap_or_default())
        .arg("EX")
        .arg(LIVES.as_secs())
        .query_async::<()>(&mut index.connection())
        .await?;
    Ok(())
}

pub async fn get(index: &Index, name: &str) -> Result<Option<KnownRegion>, RedisError> {
    let text: Option<String> =
        redis::cmd("GET").arg(format!("{PREFIX}{name}")).query_async(&mut index.connection()).await?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}
