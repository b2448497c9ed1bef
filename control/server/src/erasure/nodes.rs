//! The second consumer: every node, over its stream of commands. A row of the matrix each, called `node:NAME`, which
//! waits for as long as its node is away.

use dormouse_api::Problem;
use dormouse_api::registry::erasure::{ErasureAnswer, NodeErasure, ServiceState};

use super::answer;
use crate::store::{Row, StoreError, Tx, args};

/// No service's name has a `:` (names.rs).
const PREFIX: &str = "node:";
/// Told to a node at once; the rest when these are answered.
const BATCH: u32 = 100;
/// What is said for a node that can't be asked any more.
const GONE: &str = "the node was removed from the registry; what it knew of players was in its memory";

pub fn service(node: &str) -> String {
    format!("{PREFIX}{node}")
}

/// The node that a row of the matrix is about.
pub fn of(service: &str) -> Option<&str> {
    service.strip_prefix(PREFIX)
}

/// A waiting row for every node there is; one that was removed since answers no more.
pub(super) async fn ask(tx: &mut Tx, id: &str) -> Result<(), Problem> {
    let sql = "INSERT INTO erasure_service (erasure, service, state, rows_erased) \
               SELECT $1, $2 || name, 'waiting', 0 FROM node WHERE true ON CONFLICT (erasure, service) DO NOTHING";
    tx.execute(sql, &args![id, PREFIX]).await?;
    let sql = "UPDATE erasure_service SET state = 'skipped', reason = $3 WHERE erasure = $1 AND state = 'waiting' \
               AND substr(service, 1, length($2)) = $2 \
               AND substr(service, length($2) + 1) NOT IN (SELECT name FROM node)";
    tx.execute(sql, &args![id, PREFIX, GONE]).await?;
    Ok(())
}

/// A node is removed: nobody will answer for it.
pub async fn gone(tx: &mut Tx, node: &str) -> Result<(), Problem> {
    let sql = "SELECT erasure FROM erasure_service WHERE service = $1 AND state = 'waiting' ORDER BY erasure";
    for row in tx.rows(sql, &args![service(node)]).await? {
        let said = ErasureAnswer {
            service: service(node),
            state: ServiceState::Skipped,
            count: 0,
            reason: Some(GONE.to_owned()),
        };
        answer(tx, &row.text("erasure")?, &said).await?;
    }
    Ok(())
}

/// What a node has not answered yet, oldest first.
pub async fn waiting(tx: &mut Tx, node: &str) -> Result<Vec<NodeErasure>, StoreError> {
    let sql = "SELECT e.id, e.subject, e.tenant FROM erasure_service s JOIN erasure e ON e.id = s.erasure \
               WHERE s.service = $1 AND s.state = 'waiting' ORDER BY e.id LIMIT $2";
    let one = |row: &Row| {
        Ok(NodeErasure {
            request: row.text("id")?,
            subject: row.text("subject")?,
            tenant: row.opt_text("tenant")?,
        })
    };
    tx.rows(sql, &args![service(node), BATCH]).await?.iter().map(one).collect()
}
