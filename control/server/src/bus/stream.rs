//! The outbox into Redis: `dormouse:REGION:events`, one entry an event.
//!
//! An entry's id is the event's position, `POSITION-0`: Redis itself refuses a second one, and the last id in the
//! stream says where to go on, also after Redis lost its last second (AOF `everysec`) or everything.

use std::sync::Arc;
use std::time::Duration;

use dormouse_api::registry::bus::BusEvent;
use redis::aio::MultiplexedConnection;
use redis::streams::StreamInfoStreamReply;
use redis::{AsyncConnectionConfig, Client, RedisError, Value};
use serde_json::value::RawValue;

use super::read;
use crate::app::App;
use crate::failpoint;
use crate::store::{Scope, StoreError};

const BATCH: u32 = 200;
/// After a failure.
const AGAIN: Duration = Duration::from_secs(1);
/// A healthy Redis answers in less than a millisecond.
const ANSWER: Duration = Duration::from_secs(2);
/// The name of its position among the sinks.
pub const SINK: &str = "redis";
/// The field of an entry that holds the event's type: who wants others only need not look into it.
pub const KIND: &str = "type";
/// The field of an entry that holds the event's JSON.
pub const FIELD: &str = "event";

pub fn key(region: &str) -> String {
    format!("dormouse:{region}:events")
}

#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("Redis: {0}")]
    Redis(#[from] RedisError),
    #[error("an event cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Sends what is sequenced, for ever.
pub async fn run(app: Arc<App>, client: Client) {
    let mut sequenced = app.sequenced.subscribe();
    loop {
        if let Err(error) = send_all(&app, &client, &mut sequenced).await {
            tracing::warn!(%error, "events wait in the outbox for Redis; tried again");
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// For what is short: redis-rs's own half second is not enough on a busy machine.
pub async fn connect(client: &Client) -> Result<MultiplexedConnection, RedisError> {
    let config =
        AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER)).set_connection_timeout(Some(ANSWER));
    client.get_multiplexed_async_connection_with_config(&config).await
}

async fn send_all(
    app: &App,
    client: &Client,
    sequenced: &mut tokio::sync::watch::Receiver<u64>,
) -> Result<(), RelayError> {
    let mut connection = connect(client).await?;
    let stream = key(&app.region.name);
    loop {
        sequenced.borrow_and_update();
        let mut at = last(&mut connection, &stream).await?;
        loop {
            let mut tx = app.db.read(&Scope::Region).await?;
            let events = read::after(&mut tx, &app.region.name, at, "", BATCH).await?;
            tx.commit().await?;
            let Some(newest) = events.last().map(|event| event.position) else { break };
            send(&mut connection, &stream, &events).await?;
            at = newest;
            let mut tx = app.db.write(&Scope::Region).await?;
            failpoint::arm("relay");
            read::set_position(&mut tx, SINK, at).await?;
            tx.commit().await?;
            failpoint::at("relay-marked");
            if events.len() < BATCH as usize {
                break;
            }
        }
        // A look now and then also without news: Redis may have been emptied.
        let _ = tokio::time::timeout(Duration::from_secs(5), sequenced.changed()).await;
    }
}

/// The position of the last entry that the stream ever had: it may be trimmed since.
async fn last(connection: &mut MultiplexedConnection, stream: &str) -> Result<u64, RedisError> {
    let known: Result<StreamInfoStreamReply, _> =
        redis::cmd("XINFO").arg("STREAM").arg(stream).query_async(connection).await;
    match known {
        Ok(known) => Ok(position(&known.last_generated_id)),
        Err(error) if is_missing(&error) => Ok(0),
        Err(error) => Err(error),
    }
}

/// The position of an entry: `POSITION-0`.
pub(super) fn position(id: &str) -> u64 {
    id.split_once('-').and_then(|(position, _)| position.parse().ok()).unwrap_or(0)
}

/// There is no such stream yet.
pub(super) fn is_missing(error: &RedisError) -> bool {
    error.to_string().contains("no such key")
}

async fn send(
    connection: &mut MultiplexedConnection,
    stream: &str,
    events: &[BusEvent<Box<RawValue>>],
) -> Result<(), RelayError> {
    let mut pipe = redis::pipe();
    for event in events {
        pipe.cmd("XADD")
            .arg(stream)
            .arg(format!("{}-0", event.position))
            .arg(KIND)
            .arg(&event.kind)
            .arg(FIELD)
            .arg(serde_json::to_string(event)?);
    }
    match pipe.query_async::<Value>(connection).await {
        Ok(_) => Ok(()),
        // Another instance was faster with one of them: `last` is asked again, and what is missing is sent.
        Err(error) if error.to_string().contains("equal or smaller") => Ok(()),
        Err(error) => Err(error.into()),
    }
}
