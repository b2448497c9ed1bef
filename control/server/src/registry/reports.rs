//! What nodes report: stages, memory, and from them usage.
//!
//! A report of n servers is a handful of statements, not n: 200 nodes report every ten seconds.

use std::collections::HashMap;

use dormouse_api::Problem;
use dormouse_api::registry::node::{NodeReport, ServerFacts};
use dormouse_api::status::{Mode, Stage};
use sqlx::AssertSqlSafe;

use super::servers::{self, Known, word};
use super::{commands, nodes};
use crate::clock;
use crate::names::ServerName;
use crate::outbox::{Post, post};
use crate::store::{Arg, Tx, args};

/// Between two reports of a node more time than this was no time that we know anything of.
const GAP_MS: u64 = 60_000;
const DAY_MS: u64 = 86_400_000;
/// Rows in one INSERT: far below the 32,766 values that SQLite takes (its limits.html, 9).
const ROWS: usize = 200;
/// Servers in one report.
pub const SERVERS_MOST: usize = 5000;
const NOTE_MOST: usize = 500;

/// What is known of a server before the report.
struct Before {
    name: ServerName,
    mode: Mode,
    placed: bool,
    stage: Option<Stage>,
    reported_at: Option<u64>,
}

/// What a report changed.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Servers that changed their stage or came to this node.
    pub changed: Vec<Known>,
    pub unknown: Vec<String>,
}

pub async fn take(tx: &mut Tx, region: &str, node: &str, report: &NodeReport) -> Result<Outcome, Problem> {
    let now = clock::now_ms();
    if report.servers.len() > SERVERS_MOST {
        return Err(Problem::bad_field("servers", format!("more than {SERVERS_MOST} servers in one report")));
    }
    let facts = serde_json::to_string(&report.node).map_err(|error| Problem::internal(error.to_string()))?;
    let sql = "UPDATE node SET facts = $2, reported_at = $3, clock_at = $4, total_bytes = $5 \
               WHERE name = $1 AND (clock_at IS NULL OR clock_at <= $4)";
    let values = args![node, facts, now, report.at_ms, report.node.total_bytes];
    if tx.execute(sql, &values).await? == 0 {
        // Late, or of a node that nobody registered.
        nodes::get(tx, region, node).await?;
        return Ok(Outcome::default());
    }
    let mut before = before(tx, node, report).await?;
    let mut outcome = Outcome::default();
    let (mut rows, mut usage, mut moved) = (Vec::new(), Vec::new(), Vec::new());
    for facts in &report.servers {
        let Some(known) = before.remove(facts.name.as_str()) else {
            outcome.unknown.push(facts.name.clone());
            continue;
        };
        rows.push(row(&known.name, facts, now)?);
        if let (Some(stage), Some(at)) = (known.stage, known.reported_at) {
            usage.push(used(&known.name, facts, stage, now.saturating_sub(at), now));
        }
        if known.stage != Some(facts.stage) || !known.placed {
            moved.push(known.name.clone());
        }
        if report.follows && facts.mode != known.mode {
            commands::follow_mode(tx, &known.name, node, known.mode).await?;
        }
    }
    insert(tx, REPORT, &rows).await?;
    insert(tx, USAGE, &usage).await?;
    for name in moved {
        let values = args![&name.tenant, &name.name, node];
        let known = servers::update(tx, region, &name, "node = COALESCE(s.node, $3)", &values).await?;
        let known = known.ok_or_else(|| servers::no_such(&name))?;
        servers::tell(tx, "server.stage", &known)?;
        outcome.changed.push(known);
    }
    if report.node.players_waiting > 0 {
        let told =
            Post { kind: "node.players_waiting", subject: Some(node), tenant: None, data: &report.node };
        post(tx, &told)?;
    }
    Ok(outcome)
}

/// The node's servers, and those of the report that are nowhere yet: they are where they are seen.
async fn before<'a>(
    tx: &mut Tx,
    node: &str,
    report: &'a NodeReport,
) -> Result<HashMap<&'a str, Before>, Problem> {
    let sql = "SELECT s.tenant, s.name, s.mode, s.node, r.stage, r.reported_at FROM server s \
               LEFT JOIN server_report r ON r.tenant = s.tenant AND r.name = s.name \
               WHERE (s.node = $1 OR s.node IS NULL) AND s.deleted_at IS NULL";
    let reported: HashMap<&str, &str> =
        report.servers.iter().map(|server| (server.name.as_str(), server.name.as_str())).collect();
    let mut known = HashMap::new();
    for row in tx.rows(sql, &args![node]).await? {
        let name = ServerName { tenant: row.text("tenant")?, name: row.text("name")? };
        let Some(key) = reported.get(name.to_string().as_str()) else { continue };
        let stage = if row.opt_text("stage")?.is_some() { Some(row.word("stage")?) } else { None };
        let placed = row.opt_text("node")?.is_some();
        let reported_at = row.opt_number("reported_at")?;
        known.insert(*key, Before { name, mode: row.word("mode")?, placed, stage, reported_at });
    }
    Ok(known)
}

/// An INSERT of several rows that adds to what is there.
struct Insert {
    columns: usize,
    head: &'static str,
    tail: &'static str,
}

const REPORT: Insert = Insert {
    columns: 11,
    head: "INSERT INTO server_report (tenant, name, stage, since_at, flows, resident_bytes, size_bytes, \
           last_player_at, kept, note, reported_at) VALUES ",
    tail: " ON CONFLICT (tenant, name) DO UPDATE SET stage = excluded.stage, since_at = excluded.since_at, \
           flows = excluded.flows, resident_bytes = excluded.resident_bytes, size_bytes = excluded.size_bytes, \
           last_player_at = excluded.last_player_at, kept = excluded.kept, note = excluded.note, \
           reported_at = excluded.reported_at",
};

const USAGE: Insert = Insert {
    columns: 9,
    head: "INSERT INTO usage_day (tenant, name, day, awake_ms, dozing_ms, deep_ms, resident_mib_seconds, \
           saved_mib_seconds, wakes) VALUES ",
    tail: " ON CONFLICT (tenant, name, day) DO UPDATE SET awake_ms = usage_day.awake_ms + excluded.awake_ms, \
           dozing_ms = usage_day.dozing_ms + excluded.dozing_ms, deep_ms = usage_day.deep_ms + excluded.deep_ms, \
           resident_mib_seconds = usage_day.resident_mib_seconds + excluded.resident_mib_seconds, \
           saved_mib_seconds = usage_day.saved_mib_seconds + excluded.saved_mib_seconds, \
           wakes = usage_day.wakes + excluded.wakes",
};

async fn insert(tx: &mut Tx, insert: Insert, rows: &[Vec<Arg>]) -> Result<(), Problem> {
    for chunk in rows.chunks(ROWS) {
        let place = |row: usize| {
            let values: Vec<String> =
                (1..=insert.columns).map(|column| format!("${}", row * insert.columns + column)).collect();
            format!("({})", values.join(", "))
        };
        let places: Vec<String> = (0..chunk.len()).map(place).collect();
        let sql = format!("{}{}{}", insert.head, places.join(", "), insert.tail);
        tx.execute(AssertSqlSafe(sql), &chunk.concat()).await?;
    }
    Ok(())
}

fn row(name: &ServerName, facts: &ServerFacts, now: u64) -> Result<Vec<Arg>, Problem> {
    let kept = facts.kept.as_ref().map(serde_json::to_string).transpose();
    let kept = kept.map_err(|error| Problem::internal(error.to_string()))?;
    let note = facts.note.as_ref().map(|note| note.chars().take(NOTE_MOST).collect::<String>());
    Ok(args![
        &name.tenant,
        &name.name,
        word(&facts.stage)?,
        facts.since_at_ms,
        facts.flows,
        facts.resident_bytes,
        facts.size_bytes,
        facts.last_player_at_ms,
        kept,
        note,
        now,
    ]
    .to_vec())
}

/// The time since the report before, in the stage that it told.
fn used(name: &ServerName, facts: &ServerFacts, stage: Stage, length_ms: u64, now: u64) -> Vec<Arg> {
    let length_ms = if length_ms > GAP_MS { 0 } else { length_ms };
    let of = |wanted: bool| if wanted { length_ms } else { 0 };
    let mib_seconds = |bytes: u64| (bytes >> 20).saturating_mul(length_ms) / 1000;
    let saved = facts.size_bytes.saturating_sub(facts.resident_bytes);
    let asleep = matches!(stage, Stage::Dozing | Stage::Deep);
    let woke = asleep && matches!(facts.stage, Stage::Awake | Stage::Waking);
    args![
        &name.tenant,
        &name.name,
        now / DAY_MS,
        of(!asleep),
        of(stage == Stage::Dozing),
        of(stage == Stage::Deep),
        mib_seconds(facts.resident_bytes),
        if asleep { mib_seconds(saved) } else { 0 },
        u64::from(woke),
    ]
    .to_vec()
}
