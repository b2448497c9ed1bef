//! Servers: the regional truth.

use std::fmt::Write;

use dormouse_api::Problem;
use dormouse_api::registry::Page;
use dormouse_api::registry::server::{ChangeServer, NewServer, Server, ServerFilter, ServerReport};
use dormouse_api::status::{Mode, Stage};
use serde::Serialize;
use sqlx::AssertSqlSafe;

use super::checked::Checked;
use super::{matches, page, page_size};
use crate::auth::caller::no_such_tenant;
use crate::clock;
use crate::names::ServerName;
use crate::outbox::{Post, post};
use crate::store::{Arg, Row, StoreError, Tx, args};

/// A server `s` with what its node reported last, `r`.
macro_rules! columns {
    () => {
        "s.tenant, s.name, s.profile, s.mode, s.node, s.memory_bytes, s.address, s.created_at, \
         s.changed_at, s.deleted_at, s.version, s.sequence, r.stage, r.since_at, r.flows, r.resident_bytes, \
         r.size_bytes, r.last_player_at, r.kept, r.note, r.reported_at"
    };
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT ",
            columns!(),
            " FROM server s LEFT JOIN server_report r ON r.tenant = s.tenant AND r.name = s.name ",
            $rest
        )
    };
}

/// A row as the index and the bus see it too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub server: Server,
    /// Rises with everything that the index shows.
    pub sequence: u64,
}

fn read(row: &Row, region: &str) -> Result<Known, StoreError> {
    let (tenant, name) = (row.text("tenant")?, row.text("name")?);
    let report = match row.opt_text("stage")? {
        None => None,
        Some(_) => Some(ServerReport {
            stage: row.word("stage")?,
            since_at_ms: row.number("since_at")?,
            flows: u32::try_from(row.number("flows")?).unwrap_or(u32::MAX),
            resident_bytes: row.number("resident_bytes")?,
            size_bytes: row.number("size_bytes")?,
            last_player_at_ms: row.opt_number("last_player_at")?,
            kept: row.opt_json("kept")?,
            note: row.opt_text("note")?,
            reported_at_ms: row.number("reported_at")?,
        }),
    };
    let server = Server {
        name: format!("{tenant}/{name}"),
        tenant,
        profile: row.text("profile")?,
        mode: row.word("mode")?,
        region: region.to_owned(),
        node: row.opt_text("node")?,
        memory_bytes: row.number("memory_bytes")?,
        address: row.opt_text("address")?,
        report,
        created_at_ms: row.number("created_at")?,
        changed_at_ms: row.number("changed_at")?,
        version: row.number("version")?,
    };
    Ok(Known { server, sequence: row.number("sequence")? })
}

pub fn no_such(name: &ServerName) -> Problem {
    Problem::no_such_server(&name.to_string())
        .with_remedy("`dormouse servers list` lists them, `dormouse servers add` adds one")
}

pub async fn get(tx: &mut Tx, region: &str, name: &ServerName) -> Result<Known, Problem> {
    let sql = select!("WHERE s.tenant = $1 AND s.name = $2 AND s.deleted_at IS NULL");
    let row = tx.row(sql, &args![&name.tenant, &name.name]).await?;
    row.map(|row| read(&row, region)).transpose()?.ok_or_else(|| no_such(name))
}

/// In the order of their names. `tenant`: its servers alone.
pub async fn list(
    tx: &mut Tx,
    region: &str,
    tenant: Option<&str>,
    filter: &ServerFilter,
) -> Result<Page<Server>, Problem> {
    let size = page_size(filter.limit)?;
    let after = filter.cursor.as_deref().map(|cursor| ServerName::parse("cursor", cursor)).transpose()?;
    // A stage is its report's, and the index by stage has the names in order.
    let by = if filter.stage.is_some() { "r" } else { "s" };
    // Static pieces only; every value is bound.
    let mut sql = select!("WHERE s.deleted_at IS NULL").to_owned();
    let mut values: Vec<Arg> = Vec::new();
    let mut and = |piece: &str, value: Arg| {
        values.push(value);
        let _ = write!(sql, " AND {piece} ${}", values.len());
    };
    match (tenant, after) {
        (Some(tenant), after) => {
            and(&format!("{by}.tenant ="), tenant.into());
            if let Some(after) = after {
                // A cursor of another tenant's names is before or after all of one's own.
                let own = match after.tenant.as_str().cmp(tenant) {
                    std::cmp::Ordering::Less => String::new(),
                    std::cmp::Ordering::Equal => after.name,
                    std::cmp::Ordering::Greater => return Ok(Page { items: Vec::new(), next: None }),
                };
                and(&format!("{by}.name >"), own.into());
            }
        }
        (None, Some(after)) => {
            values.extend([after.tenant.into(), after.name.into()]);
            let _ = write!(sql, " AND ({by}.tenant, {by}.name) > ($1, $2)");
        }
        (None, None) => {}
    }
    let mut and = |piece: &str, value: Arg| {
        values.push(value);
        let _ = write!(sql, " AND {piece} ${}", values.len());
    };
    if let Some(profile) = &filter.profile {
        and("s.profile =", profile.into());
    }
    if let Some(node) = &filter.node {
        and("s.node =", node.into());
    }
    if let Some(stage) = filter.stage {
        and("r.stage =", word(&stage)?.into());
    }
    // The size in the text: of a page of any size PostgreSQL takes it that it is a tenth of all servers, and then plans
    // the statement anew at each request, for the sizes asked for: as long again as it takes to read the page.
    let _ = write!(sql, " ORDER BY {by}.tenant, {by}.name LIMIT {}", size + 1);
    let rows = tx.rows(AssertSqlSafe(sql), &values).await?;
    let servers =
        rows.iter().map(|row| Ok(read(row, region)?.server)).collect::<Result<Vec<_>, StoreError>>()?;
    Ok(page(servers, size, |server| server.name.clone()))
}

/// Every server after a name, graves too, with whether it is one.
pub async fn all_after(
    tx: &mut Tx,
    region: &str,
    after: Option<&ServerName>,
    size: u32,
) -> Result<Vec<(Known, bool)>, Problem> {
    let sql = select!("WHERE (s.tenant, s.name) > ($1, $2) ORDER BY s.tenant, s.name LIMIT $3");
    let (tenant, name) = after.map_or(("", ""), |after| (&after.tenant, &after.name));
    let rows = tx.rows(sql, &args![tenant, name, size]).await?;
    let one = |row: &Row| Ok((read(row, region)?, row.opt_number("deleted_at")?.is_some()));
    Ok(rows.iter().map(one).collect::<Result<Vec<_>, StoreError>>()?)
}

/// A name that was deleted may come back; its version goes on.
pub async fn create(tx: &mut Tx, region: &str, new: &NewServer) -> Result<Known, Problem> {
    let name = ServerName::parse("name", &new.name)?;
    let checked =
        Checked::of(Some(&new.profile), new.memory_bytes, new.address.as_deref(), new.node.as_deref())?;
    checked.exists(tx).await?;
    // Counts, and holds the tenant's row until the commit: the limit holds for two at once too.
    let counted = tx
        .execute(
            "UPDATE tenant SET servers = servers + 1 WHERE id = $1 AND servers < server_limit",
            &args![&name.tenant],
        )
        .await?;
    if counted == 0 {
        let sql = "SELECT server_limit FROM tenant WHERE id = $1";
        let row = tx.row(sql, &args![&name.tenant]).await?.ok_or_else(|| no_such_tenant(&name.tenant))?;
        let limit = row.number("server_limit")?;
        return Err(Problem::refused(format!("{} has its {limit} servers", name.tenant))
            .with_remedy("an operator raises server_limit of the tenant"));
    }
    let now = clock::now_ms();
    let made = tx
        .execute(
            "INSERT INTO server (tenant, name, profile, mode, node, memory_bytes, address, created_at, \
             changed_at, version, sequence) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, 1, 1) \
             ON CONFLICT (tenant, name) DO UPDATE SET profile = excluded.profile, mode = excluded.mode, \
             node = excluded.node, memory_bytes = excluded.memory_bytes, address = excluded.address, \
             created_at = excluded.created_at, changed_at = excluded.changed_at, deleted_at = NULL, \
             version = server.version + 1, sequence = server.sequence + 1 \
             WHERE server.deleted_at IS NOT NULL",
            &args![
                &name.tenant,
                &name.name,
                &new.profile,
                word(&new.mode.unwrap_or(Mode::Observe))?,
                checked.node.as_deref(),
                new.memory_bytes.unwrap_or(0),
                checked.address.as_deref(),
                now,
            ],
        )
        .await?;
    if made == 0 {
        return Err(Problem::refused(format!("a server is called {name} already")));
    }
    let known = get(tx, region, &name).await?;
    tell(tx, "server.created", &known)?;
    Ok(known)
}

/// Changes a living server, and reads it with its report. `values`: its tenant, its name, and those of `set`.
pub async fn update(
    tx: &mut Tx,
    region: &str,
    name: &ServerName,
    set: &'static str,
    values: &[Arg],
) -> Result<Option<Known>, Problem> {
    let update = format!("UPDATE server AS s SET {set}, sequence = s.sequence + 1");
    let this = "s.tenant = $1 AND s.name = $2 AND s.deleted_at IS NULL";
    if tx.is_postgres() {
        // In one round trip. `k` is the server, and `r` its report, as they were when the statement began. What raised
        // the sequence while it waited for the row may have come with another report: it is read again then.
        let sql = format!(
            "{update} FROM server k LEFT JOIN server_report r ON r.tenant = k.tenant AND r.name = k.name \
             WHERE {this} AND k.tenant = s.tenant AND k.name = s.name RETURNING {}, k.sequence AS known_sequence",
            columns!()
        );
        let Some(row) = tx.row(AssertSqlSafe(sql), values).await? else { return Ok(None) };
        let known = read(&row, region)?;
        if row.opt_number("known_sequence")? == Some(known.sequence - 1) {
            return Ok(Some(known));
        }
    } else if tx.execute(AssertSqlSafe(format!("{update} WHERE {this}")), values).await? == 0 {
        return Ok(None);
    }
    get(tx, region, name).await.map(Some)
}

pub async fn change(
    tx: &mut Tx,
    region: &str,
    name: &ServerName,
    change: &ChangeServer,
    expected: Option<u64>,
) -> Result<Known, Problem> {
    let checked = Checked::of(
        change.profile.as_deref(),
        change.memory_bytes,
        change.address.as_deref(),
        change.node.as_deref(),
    )?;
    checked.exists(tx).await?;
    let set = "profile = COALESCE($3, s.profile), mode = COALESCE($4, s.mode), node = COALESCE($5, s.node), \
               memory_bytes = COALESCE($6, s.memory_bytes), address = COALESCE($7, s.address), changed_at = $8, \
               version = s.version + 1";
    let mode = change.mode.map(|mode| word(&mode)).transpose()?;
    let values = args![
        &name.tenant,
        &name.name,
        checked.profile.as_deref(),
        mode,
        checked.node.as_deref(),
        change.memory_bytes,
        checked.address.as_deref(),
        clock::now_ms(),
    ];
    let known = update(tx, region, name, set, &values).await?.ok_or_else(|| no_such(name))?;
    matches(expected, known.server.version - 1)?;
    tell(tx, "server.changed", &known)?;
    Ok(known)
}

pub async fn delete(
    tx: &mut Tx,
    region: &str,
    name: &ServerName,
    expected: Option<u64>,
) -> Result<Known, Problem> {
    let mut known = get(tx, region, name).await?;
    let sql = "UPDATE server SET deleted_at = $3, changed_at = $3, version = version + 1, \
               sequence = sequence + 1 WHERE tenant = $1 AND name = $2 AND deleted_at IS NULL \
               RETURNING version, sequence";
    let row = tx.row(sql, &args![&name.tenant, &name.name, clock::now_ms()]).await?;
    // Read again here: on PostgreSQL somebody may have changed it since the first look.
    let row = row.ok_or_else(|| no_such(name))?;
    matches(expected, row.number("version")? - 1)?;
    tx.execute("UPDATE tenant SET servers = servers - 1 WHERE id = $1", &args![&name.tenant]).await?;
    for sql in [
        "DELETE FROM server_report WHERE tenant = $1 AND name = $2",
        "DELETE FROM threshold WHERE tenant = $1 AND target = $2",
    ] {
        tx.execute(sql, &args![&name.tenant, &name.name]).await?;
    }
    known.server.version = row.number("version")?;
    known.sequence = row.number("sequence")?;
    tell(tx, "server.deleted", &known)?;
    Ok(known)
}

/// What the bus is told of a server.
#[derive(Serialize)]
struct Told<'a> {
    /// Rises with every event of a server: an older one that comes late is to be ignored.
    sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<Stage>,
    server: &'a Server,
}

pub fn tell(tx: &mut Tx, kind: &'static str, known: &Known) -> Result<(), Problem> {
    let Known { server, sequence } = known;
    let stage = server.report.as_ref().map(|report| report.stage);
    let data = &Told { sequence: *sequence, stage, server };
    post(tx, &Post { kind, subject: Some(&server.name), tenant: Some(&server.tenant), data })
}

/// A wire type's word, as serde writes it.
pub fn word(value: &impl Serialize) -> Result<String, Problem> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => Ok(word),
        _ => Err(Problem::internal("a word that is no word")),
    }
}
