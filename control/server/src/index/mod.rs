//! The global index in Redis: which region owns a server. A lookup table shared by all regions; the regional database
//! is the truth (design §6.2).

pub mod check;
pub mod refresh;
pub mod regions;
pub mod writer;

use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, RedisError, Script};
use serde::{Deserialize, Serialize};

use crate::registry::servers::Known;

/// A slow index is no reason for a slow answer.
const ANSWER: Duration = Duration::from_millis(200);
/// Entries in one round trip: some milliseconds of Redis' time.
const AT_ONCE: usize = 50;
pub const PREFIX: &str = "dormouse:server:";

/// What the index says of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// `TENANT/NAME`
    pub server: String,
    pub region: String,
    /// The region's address.
    pub url: String,
    pub node: Option<String>,
    pub stage: Option<String>,
    /// Rises with each change: a late write never overwrites a newer one.
    pub sequence: u64,
    /// A grave: the name was deleted, and says so until it fades.
    pub deleted: bool,
}

impl Entry {
    pub fn of(known: &Known, url: &str, deleted: bool) -> Self {
        let Known { server, sequence } = known;
        let stage =
            server.report.as_ref().and_then(|report| crate::registry::servers::word(&report.stage).ok());
        Self {
            server: server.name.clone(),
            region: server.region.clone(),
            url: url.to_owned(),
            node: server.node.clone(),
            stage,
            sequence: *sequence,
            deleted,
        }
    }
}

/// Compares and writes, each entry in one step. Of each: 1: written; 2: the same again, refreshed; 0: older than what is
/// there; -1: another region's living server has the name.
///
/// ARGV: how long they live, ms; then of each of KEYS its region, sequence, whether it is deleted, and the entry.
const PUT: &str = r"
local done = {}
for i, key in ipairs(KEYS) do
    local region, sequence, deleted, entry = unpack(ARGV, i * 4 - 2, i * 4 + 1)
    local known = redis.call('HMGET', key, 'region', 'sequence', 'deleted')
    local became = 1
    if known[1] == region then
        if tonumber(known[2]) > tonumber(sequence) then
            became = 0
        elseif tonumber(known[2]) == tonumber(sequence) and known[3] == deleted then
            became = 2
        end
    elseif known[1] and known[3] == '0' then
        became = -1
    end
    if became == 1 then
        redis.call('HSET', key, 'region', region, 'sequence', sequence, 'deleted', deleted, 'entry', entry)
    end
    if became > 0 then
        redis.call('PEXPIRE', key, ARGV[1])
    end
    done[i] = became
end
return done
";

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    Written,
    Refreshed,
    Older,
    Foreign,
}

/// A way to the index.
#[derive(Clone)]
pub struct Index {
    connection: ConnectionManager,
    put: Script,
    ttl: Duration,
}

impl Index {
    /// Never fails for want of Redis: it connects when it is there.
    pub fn new(client: &Client, ttl: Duration) -> Result<Self, RedisError> {
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(ANSWER))
            .set_connection_timeout(Some(ANSWER))
            .set_number_of_retries(1);
        let connection = ConnectionManager::new_lazy_with_config(client.clone(), config)?;
        Ok(Self { connection, put: Script::new(PUT), ttl })
    }

    pub const fn ttl(&self) -> Duration {
        self.ttl
    }

    pub fn connection(&self) -> ConnectionManager {
        self.connection.clone()
    }

    /// Writes these, each in one atomic step, all of them in one round trip.
    pub async fn put(&self, entries: &[Entry]) -> Result<Vec<Put>, RedisError> {
        let mut put = self.put.prepare_invoke();
        put.arg(u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX));
        for entry in entries {
            put.key(format!("{PREFIX}{}", entry.server))
                .arg(&entry.region)
                .arg(entry.sequence)
                .arg(u8::from(entry.deleted))
                .arg(serde_json::to_string(entry).unwrap_or_default());
        }
        let done: Vec<i64> = put.invoke_async(&mut self.connection()).await?;
        let became = |done| match done {
            1 => Put::Written,
            2 => Put::Refreshed,
            0 => Put::Older,
            _ => Put::Foreign,
        };
        Ok(done.into_iter().map(became).collect())
    }

    /// The entry of a living server.
    pub async fn get(&self, server: &str) -> Result<Option<Entry>, RedisError> {
        let text: Option<String> = redis::cmd("HGET")
            .arg(format!("{PREFIX}{server}"))
            .arg("entry")
            .query_async(&mut self.connection())
            .await?;
        Ok(text.and_then(|text| serde_json::from_str::<Entry>(&text).ok()).filter(|entry| !entry.deleted))
    }
}
