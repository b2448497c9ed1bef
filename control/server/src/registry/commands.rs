//! Commands to nodes: delivered at least once, applied once, dropped when late.

use dormouse_api::registry::node::{Command, CommandAnswer, CommandState, DecidedOn, Order};
use dormouse_api::status::Mode;
use dormouse_api::{Code, Problem};

use super::servers::{self, Known};
use crate::clock;
use crate::names::ServerName;
use crate::store::{Row, StoreError, Tx, args};

/// A command that is older says nothing about now (design §6.2).
pub const LIVES_MS: u64 = 60_000;
/// Answered commands are kept so long.
pub const KEPT_MS: u64 = 86_400_000;
const DETAIL_MOST: usize = 500;

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, tenant, name, node, asked, decided_on, created_at, expires_at, state, detail ",
            "FROM command ",
            $rest
        )
    };
}

/// A command and the node that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addressed {
    pub node: String,
    pub command: Command,
}

fn read(row: &Row) -> Result<Addressed, StoreError> {
    let expires_at_ms = row.number("expires_at")?;
    let command = Command {
        id: row.text("id")?,
        server: format!("{}/{}", row.text("tenant")?, row.text("name")?),
        order: row.json("asked")?,
        decided_on: row.opt_json("decided_on")?,
        created_at_ms: row.number("created_at")?,
        expires_at_ms,
        expires_in_ms: expires_at_ms.saturating_sub(clock::now_ms()),
        state: row.word("state")?,
        detail: row.opt_text("detail")?,
    };
    Ok(Addressed { node: row.text("node")?, command })
}

fn json(value: &impl serde::Serialize) -> Result<String, Problem> {
    serde_json::to_string(value).map_err(|error| Problem::internal(error.to_string()))
}

/// Asks the server's node, on what is known of the server now.
pub async fn order(tx: &mut Tx, region: &str, name: &ServerName, order: &Order) -> Result<Command, Problem> {
    let Known { server, .. } = servers::get(tx, region, name).await?;
    let Some(node) = &server.node else {
        return Err(Problem::refused(format!("{name} is on no node")));
    };
    let decided_on = server.report.as_ref().map(|report| DecidedOn {
        stage: report.stage,
        since_at_ms: report.since_at_ms,
        version: server.version,
    });
    if decided_on.is_none() && matches!(order, Order::Sleep { .. }) {
        return Err(Problem::refused(format!("{node} has not reported {name} yet: is anybody playing?")));
    }
    write(tx, name, node, order, decided_on).await
}

/// The registry's mode is another than the node's. One such command at a time.
pub async fn follow_mode(tx: &mut Tx, name: &ServerName, node: &str, mode: Mode) -> Result<(), Problem> {
    let order = Order::SetMode { mode };
    let sql = "SELECT id FROM command WHERE tenant = $1 AND name = $2 AND asked = $3 AND state = 'waiting' \
               AND expires_at > $4";
    let values = args![&name.tenant, &name.name, json(&order)?, clock::now_ms()];
    if tx.row(sql, &values).await?.is_none() {
        write(tx, name, node, &order, None).await?;
    }
    Ok(())
}

async fn write(
    tx: &mut Tx,
    name: &ServerName,
    node: &str,
    order: &Order,
    decided_on: Option<DecidedOn>,
) -> Result<Command, Problem> {
    let now = clock::now_ms();
    let command = Command {
        id: uuid::Uuid::now_v7().simple().to_string(),
        server: name.to_string(),
        order: order.clone(),
        decided_on,
        created_at_ms: now,
        expires_at_ms: now + LIVES_MS,
        expires_in_ms: LIVES_MS,
        state: CommandState::Waiting,
        detail: None,
    };
    let decided_on = decided_on.as_ref().map(json).transpose()?;
    tx.execute(
        "INSERT INTO command (id, tenant, name, node, asked, decided_on, created_at, expires_at, state) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'waiting')",
        &args![
            &command.id,
            &name.tenant,
            &name.name,
            node,
            json(order)?,
            decided_on,
            now,
            command.expires_at_ms
        ],
    )
    .await?;
    Ok(command)
}

/// One's own: the scope hides the others, and the caller checks the server's tenant.
pub async fn get(tx: &mut Tx, id: &str) -> Result<Addressed, Problem> {
    let row = tx.row(select!("WHERE id = $1"), &args![id]).await?;
    row.map(|row| read(&row)).transpose()?.ok_or_else(|| no_such(id))
}

pub fn no_such(id: &str) -> Problem {
    Problem::new(Code::NotFound, format!("no command has the id {id}"))
}

/// Everything that waits for a node.
pub async fn waiting(tx: &mut Tx) -> Result<Vec<Addressed>, StoreError> {
    let sql = select!("WHERE state = 'waiting' AND expires_at > $1 ORDER BY id");
    tx.rows(sql, &args![clock::now_ms()]).await?.iter().map(read).collect()
}

/// What a node says of a command. The first word counts; a repeated one is answered as it.
pub async fn answer(tx: &mut Tx, node: &str, id: &str, answer: &CommandAnswer) -> Result<Command, Problem> {
    if answer.state == CommandState::Waiting {
        return Err(Problem::bad_field("state", "an answer is done, refused or expired"));
    }
    let detail = answer.detail.as_ref().map(|detail| detail.chars().take(DETAIL_MOST).collect::<String>());
    let sql = "UPDATE command SET state = $3, detail = $4 \
               WHERE id = $1 AND node = $2 AND state = 'waiting'";
    tx.execute(sql, &args![id, node, answer.state.name(), detail]).await?;
    let found = get(tx, id).await?;
    if found.node == node { Ok(found.command) } else { Err(no_such(id)) }
}

/// Those that nobody answered in time have expired, so many; old ones are forgotten.
pub async fn expire(tx: &mut Tx) -> Result<u64, StoreError> {
    let now = clock::now_ms();
    let sql = "UPDATE command SET state = 'expired' WHERE state = 'waiting' AND expires_at <= $1";
    let expired = tx.execute(sql, &args![now]).await?;
    let sql = "DELETE FROM command WHERE state <> 'waiting' AND expires_at < $1";
    tx.execute(sql, &args![now.saturating_sub(KEPT_MS)]).await?;
    Ok(expired)
}
