//! Nodes.

use dormouse_api::registry::Page;
use dormouse_api::registry::node::{NewNode, Node};
use dormouse_api::{Code, Problem};

use super::{matches, page};
use crate::clock;
use crate::erasure;
use crate::names;
use crate::outbox::{Post, post};
use crate::store::{Row, StoreError, Tx, args};

/// A node, and the memory that its servers need awake.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT n.name, n.total_bytes, n.facts, n.reported_at, n.version, ",
            "CAST(COALESCE((SELECT SUM(s.memory_bytes) FROM server s WHERE s.node = n.name ",
            "AND s.deleted_at IS NULL), 0) AS BIGINT) AS promised FROM node n ",
            $rest
        )
    };
}

fn read(row: &Row, region: &str) -> Result<Node, StoreError> {
    let total_bytes = row.number("total_bytes")?;
    Ok(Node {
        name: row.text("name")?,
        region: region.to_owned(),
        total_bytes,
        free_bytes: total_bytes.saturating_sub(row.number("promised")?),
        report: row.opt_json("facts")?,
        reported_at_ms: row.opt_number("reported_at")?,
        version: row.number("version")?,
    })
}

pub fn no_such(name: &str) -> Problem {
    Problem::new(Code::NotFound, format!("no node is called {name}"))
}

pub async fn get(tx: &mut Tx, region: &str, name: &str) -> Result<Node, Problem> {
    let row = tx.row(select!("WHERE n.name = $1"), &args![name]).await?;
    row.map(|row| read(&row, region)).transpose()?.ok_or_else(|| no_such(name))
}

pub async fn list(tx: &mut Tx, region: &str, cursor: Option<&str>, size: u32) -> Result<Page<Node>, Problem> {
    let sql = select!("WHERE n.name > $1 ORDER BY n.name LIMIT $2");
    let rows = tx.rows(sql, &args![cursor.unwrap_or(""), size + 1]).await?;
    let nodes = rows.iter().map(|row| read(row, region)).collect::<Result<Vec<_>, _>>()?;
    Ok(page(nodes, size, |node| node.name.clone()))
}

/// The node with the most memory that is promised to nobody, and how much that is.
pub async fn roomiest(tx: &mut Tx) -> Result<Option<(String, u64)>, Problem> {
    let rows = tx.rows(select!("ORDER BY n.name"), &[]).await?;
    let nodes = rows.iter().map(|row| read(row, "")).collect::<Result<Vec<_>, _>>()?;
    Ok(nodes.into_iter().map(|node| (node.name, node.free_bytes)).max_by_key(|(_, free)| *free))
}

pub async fn create(tx: &mut Tx, region: &str, new: &NewNode) -> Result<Node, Problem> {
    let name = names::plain("name", &new.name)?;
    if i64::try_from(new.total_bytes).is_err() {
        return Err(Problem::bad_field("total_bytes", "total_bytes is more than any machine has"));
    }
    let sql = "INSERT INTO node (name, total_bytes, created_at, version) VALUES ($1, $2, $3, 1) \
               ON CONFLICT DO NOTHING";
    if tx.execute(sql, &args![&name, new.total_bytes, clock::now_ms()]).await? == 0 {
        return Err(Problem::refused(format!("a node is called {name} already")));
    }
    let node = get(tx, region, &name).await?;
    post(tx, &Post { kind: "node.created", subject: Some(&name), tenant: None, data: &node })?;
    Ok(node)
}

/// Only one without servers.
pub async fn delete(tx: &mut Tx, name: &str, expected: Option<u64>) -> Result<(), Problem> {
    let sql = "UPDATE node SET version = version + 1 WHERE name = $1 RETURNING version";
    let row = tx.row(sql, &args![name]).await?.ok_or_else(|| no_such(name))?;
    matches(expected, row.number("version")? - 1)?;
    let sql = "SELECT name FROM server WHERE node = $1 AND deleted_at IS NULL LIMIT 1";
    if tx.row(sql, &args![name]).await?.is_some() {
        return Err(Problem::refused(format!("servers run on {name}"))
            .with_remedy("move or delete them first: `dormouse servers --node NAME`"));
    }
    erasure::nodes::gone(tx, name).await?;
    for sql in ["DELETE FROM node WHERE name = $1", "DELETE FROM api_key WHERE node = $1"] {
        tx.execute(sql, &args![name]).await?;
    }
    post(tx, &Post { kind: "node.deleted", subject: Some(name), tenant: None, data: &name })
}
