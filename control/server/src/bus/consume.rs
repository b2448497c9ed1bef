//! A service's way to read a region's stream: a consumer group, what a dead consumer left is taken over, and what
//! fails again and again goes to the dead letters instead of blocking the rest.

use std::time::Duration;

use dormouse_api::registry::bus::{BusEvent, DeadLetter};
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamAutoClaimReply, StreamId, StreamPendingCountReply, StreamReadReply};
use redis::{AsyncConnectionConfig, Client, RedisError, Value};

use super::stream::{FIELD, KIND, key};
use crate::failpoint;

/// How long a read waits for news.
const BLOCK: Duration = Duration::from_secs(2);
/// Longer than [`BLOCK`]: redis-rs would give up after 500 ms otherwise, with entries already moved to this consumer.
const ANSWER: Duration = Duration::from_secs(10);
const BATCH: usize = 100;
/// An event that was handled so often without success is dead.
pub const ATTEMPTS: usize = 5;

pub fn dead_key(region: &str) -> String {
    format!("dormouse:{region}:dead")
}

/// Who reads.
#[derive(Clone, Debug)]
pub struct Group {
    pub region: String,
    /// The service.
    pub name: String,
    /// This process of it: stable over its restarts.
    pub consumer: String,
    /// An event that its consumer has not finished for so long is another's.
    pub idle: Duration,
    /// The type of event that it is about; `None`: all. Others are done with unread.
    pub kind: Option<String>,
}

impl Group {
    fn is_about(&self, kind: &str) -> bool {
        self.kind.as_ref().is_none_or(|wanted| wanted == kind)
    }
}

/// Handles the group's events until Redis fails; to be called again then.
///
/// `handle` runs at least once for each event: an event's `id` tells a repetition.
pub async fn run<E: std::fmt::Display, F: Future<Output = Result<(), E>>>(
    client: &Client,
    group: &Group,
    handle: impl Fn(BusEvent) -> F,
) -> Result<(), RedisError> {
    // A connection of its own: a blocking read holds up everything else on it.
    let config =
        AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER)).set_connection_timeout(Some(BLOCK));
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    let stream = key(&group.region);
    create(&mut connection, &stream, &group.name).await?;
    loop {
        let left: StreamAutoClaimReply = redis::cmd("XAUTOCLAIM")
            .arg(&stream)
            .arg(&group.name)
            .arg(&group.consumer)
            .arg(u64::try_from(group.idle.as_millis()).unwrap_or(u64::MAX))
            .arg("0")
            .arg("COUNT")
            .arg(BATCH)
            .query_async(&mut connection)
            .await?;
        if !left.claimed.is_empty() {
            failpoint::at("consumer-claimed");
        }
        finish(&mut connection, &stream, group, left.claimed, &handle).await?;
        let new: StreamReadReply = redis::cmd("XREADGROUP")
            .arg("GROUP")
            .arg(&group.name)
            .arg(&group.consumer)
            .arg("COUNT")
            .arg(BATCH)
            .arg("BLOCK")
            .arg(u64::try_from(BLOCK.as_millis()).unwrap_or(u64::MAX))
            .arg("STREAMS")
            .arg(&stream)
            .arg(">")
            .query_async(&mut connection)
            .await?;
        let new: Vec<StreamId> = new.keys.into_iter().flat_map(|key| key.ids).collect();
        if !new.is_empty() {
            failpoint::at("consumer-read");
        }
        finish(&mut connection, &stream, group, new, &handle).await?;
    }
}

async fn create(connection: &mut MultiplexedConnection, stream: &str, group: &str) -> Result<(), RedisError> {
    let made: Result<Value, _> = redis::cmd("XGROUP")
        .arg("CREATE")
        .arg(stream)
        .arg(group)
        .arg("0")
        .arg("MKSTREAM")
        .query_async(connection)
        .await;
    match made {
        Err(error) if error.code() != Some("BUSYGROUP") => Err(error),
        _ => Ok(()),
    }
}

async fn finish<E: std::fmt::Display, F: Future<Output = Result<(), E>>>(
    connection: &mut MultiplexedConnection,
    stream: &str,
    group: &Group,
    entries: Vec<StreamId>,
    handle: &impl Fn(BusEvent) -> F,
) -> Result<(), RedisError> {
    // Acknowledged together: what a crash leaves is handled again.
    let mut done = Vec::with_capacity(entries.len());
    for entry in entries {
        if entry.get::<String>(KIND).is_some_and(|kind| !group.is_about(&kind)) {
            done.push(entry.id);
            continue;
        }
        let text: Option<String> = entry.get(FIELD);
        let event = text.as_deref().map(serde_json::from_str::<BusEvent>);
        let outcome = match event {
            // An entry that an earlier release wrote has no type of its own.
            Some(Ok(event)) if !group.is_about(&event.kind) => Ok(()),
            Some(Ok(event)) => handle(event).await.map_err(|error| error.to_string()),
            Some(Err(error)) => Err(format!("it is no event: {error}")),
            // Trimmed since.
            None => Ok(()),
        };
        failpoint::at("consumer-handled");
        match outcome {
            Ok(()) => done.push(entry.id),
            Err(reason) => {
                let deliveries = deliveries(connection, stream, group, &entry.id).await?;
                tracing::warn!(group = group.name, id = entry.id, deliveries, %reason, "an event was not handled");
                if deliveries >= ATTEMPTS {
                    bury(connection, group, &entry.id, &reason, deliveries, text.unwrap_or_default()).await?;
                    failpoint::at("consumer-buried");
                    done.push(entry.id);
                }
            }
        }
    }
    if !done.is_empty() {
        acknowledge(connection, stream, group, &done).await?;
        failpoint::at("consumer-acknowledged");
    }
    Ok(())
}

async fn acknowledge(
    connection: &mut MultiplexedConnection,
    stream: &str,
    group: &Group,
    ids: &[String],
) -> Result<(), RedisError> {
    redis::cmd("XACK").arg(stream).arg(&group.name).arg(ids).query_async(connection).await
}

async fn deliveries(
    connection: &mut MultiplexedConnection,
    stream: &str,
    group: &Group,
    id: &str,
) -> Result<usize, RedisError> {
    let pending: StreamPendingCountReply = redis::cmd("XPENDING")
        .arg(stream)
        .arg(&group.name)
        .arg(id)
        .arg(id)
        .arg(1)
        .query_async(connection)
        .await?;
    Ok(pending.ids.first().map_or(0, |pending| pending.times_delivered))
}

async fn bury(
    connection: &mut MultiplexedConnection,
    group: &Group,
    id: &str,
    reason: &str,
    deliveries: usize,
    event: String,
) -> Result<(), RedisError> {
    redis::cmd("XADD")
        .arg(dead_key(&group.region))
        .arg("*")
        .arg(&[("group", group.name.as_str()), ("entry", id), ("reason", reason)])
        .arg("deliveries")
        .arg(deliveries)
        .arg(FIELD)
        .arg(event)
        .query_async::<Value>(connection)
        .await?;
    Ok(())
}

/// The dead letters after an id, oldest first.
pub async fn dead(
    connection: &mut MultiplexedConnection,
    region: &str,
    after: &str,
    most: u32,
) -> Result<Vec<DeadLetter>, RedisError> {
    let reply: redis::streams::StreamRangeReply = redis::cmd("XRANGE")
        .arg(dead_key(region))
        .arg(if after.is_empty() { "-".to_owned() } else { format!("({after}") })
        .arg("+")
        .arg("COUNT")
        .arg(most)
        .query_async(connection)
        .await?;
    Ok(reply.ids.iter().filter_map(letter).collect())
}

fn letter(entry: &StreamId) -> Option<DeadLetter> {
    Some(DeadLetter {
        id: entry.id.clone(),
        group: entry.get("group")?,
        reason: entry.get("reason")?,
        deliveries: entry.get("deliveries")?,
        event: serde_json::from_str(&entry.get::<String>(FIELD)?).ok()?,
    })
}

/// Gives a dead letter to its group again: the entry is pending for nobody, and so the next to be taken over.
///
/// `false`: there is no such letter.
pub async fn redrive(
    connection: &mut MultiplexedConnection,
    region: &str,
    id: &str,
) -> Result<bool, RedisError> {
    let reply: redis::streams::StreamRangeReply =
        redis::cmd("XRANGE").arg(dead_key(region)).arg(id).arg(id).query_async(connection).await?;
    let Some(entry) = reply.ids.first() else { return Ok(false) };
    let (Some(group), Some(origin)) = (entry.get::<String>("group"), entry.get::<String>("entry")) else {
        return Ok(false);
    };
    // XCLAIM … FORCE makes it pending; IDLE of an hour, so that the next XAUTOCLAIM takes it; the count begins anew.
    redis::cmd("XCLAIM")
        .arg(key(region))
        .arg(&group)
        .arg("redrive")
        .arg(0)
        .arg(&origin)
        .arg("IDLE")
        .arg(3_600_000)
        .arg("RETRYCOUNT")
        .arg(0)
        .arg("FORCE")
        .arg("JUSTID")
        .query_async::<Value>(connection)
        .await?;
    failpoint::at("redrive-claimed");
    redis::cmd("XDEL").arg(dead_key(region)).arg(id).query_async::<Value>(connection).await?;
    Ok(true)
}
