//! The stream grows no further than the outbox: what is forgotten there goes here too, but never what a group has not
//! read and acknowledged.

use redis::streams::{StreamInfoGroup, StreamInfoGroupsReply, StreamPendingReply};
use redis::{Client, RedisError};

use super::stream::{connect, is_missing, key, position};

/// Removes the entries before `first`, as far as every group is done with them; how many.
///
/// A group that reads no more holds everything: `XGROUP DESTROY` is its operator's to say.
pub async fn run(client: &Client, region: &str, first: u64) -> Result<u64, RedisError> {
    let mut connection = connect(client).await?;
    let stream = key(region);
    let groups: Result<StreamInfoGroupsReply, RedisError> =
        redis::cmd("XINFO").arg("GROUPS").arg(&stream).query_async(&mut connection).await;
    let groups = match groups {
        Ok(groups) => groups.groups,
        Err(error) if is_missing(&error) => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut keep = first;
    for StreamInfoGroup { name, last_delivered_id, .. } in groups {
        let pending: StreamPendingReply =
            redis::cmd("XPENDING").arg(&stream).arg(&name).query_async(&mut connection).await?;
        let needs = if let StreamPendingReply::Data(pending) = pending {
            position(&pending.start_id)
        } else {
            position(&last_delivered_id) + 1
        };
        if needs < first {
            tracing::info!(group = name, position = needs, "this group has old events still to read");
        }
        keep = keep.min(needs);
    }
    redis::cmd("XTRIM").arg(&stream).arg("MINID").arg(format!("{keep}-0")).query_async(&mut connection).await
}
