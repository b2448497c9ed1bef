//! Events are written in the transaction of the change that they tell of: nothing committed is untold, nothing told
//! is uncommitted.

use dormouse_api::Problem;
use serde::Serialize;
use uuid::Uuid;

use crate::clock;
use crate::store::{Tx, args};

/// What happened.
#[derive(Clone, Debug)]
pub struct Post<'a, T> {
    /// `server.created`; on the bus `dormouse.` stands before it.
    pub kind: &'static str,
    pub subject: Option<&'a str>,
    /// `None`: the region's own.
    pub tenant: Option<&'a str>,
    pub data: &'a T,
}

pub fn post<T: Serialize>(tx: &mut Tx, post: &Post<'_, T>) -> Result<(), Problem> {
    let data = serde_json::to_string(post.data)
        .map_err(|error| Problem::internal(format!("an event cannot be written as JSON: {error}")))?;
    tx.insert_last(
        "outbox",
        "id, kind, subject, tenant, data, created_at",
        &args![Uuid::now_v7().to_string(), post.kind, post.subject, post.tenant, data, clock::now_ms()],
    );
    Ok(())
}
