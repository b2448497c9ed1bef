//! Erasure of a person's data (GDPR, Article 17): a request, a row for every service that must answer, a deadline.

pub mod consume;
pub mod ledger;
pub mod nodes;
pub mod restore;

pub use ledger::Entry;

use dormouse_api::registry::Page;
use dormouse_api::registry::erasure::{
    Erasure, ErasureAnswer, ErasureState, NewErasure, ServiceErasure, ServiceState,
};
use dormouse_api::{Code, Problem};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::names;
use crate::outbox::{Post, post};
use crate::registry::page;
use crate::store::{Row, Tx, args};

/// The control plane's own tables.
pub const OWN: &str = "control";
pub const REQUESTED: &str = "erasure.requested";
/// GDPR, Article 12(3): within one month; a week is left for people.
pub const DEADLINE_MS: u64 = 23 * 86_400_000;
const SUBJECT_MOST: usize = 128;
const REASON_MOST: usize = 500;

/// What the event says: nothing of the person but an opaque id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requested {
    pub request: String,
    pub subject: String,
}

pub fn no_such(id: &str) -> Problem {
    Problem::new(Code::NotFound, format!("no erasure has the id {id}"))
}

pub async fn create(tx: &mut Tx, new: &NewErasure, services: &[String]) -> Result<Erasure, Problem> {
    let opaque = |byte: u8| byte.is_ascii_alphanumeric() || b"-_:".contains(&byte);
    if new.subject.is_empty() || new.subject.len() > SUBJECT_MOST || !new.subject.bytes().all(opaque) {
        let detail =
            "a subject is an opaque id of letters, digits, `-`, `_` and `:`, never a name or an address";
        return Err(Problem::bad_field("subject", detail));
    }
    if let Some(tenant) = &new.tenant
        && tx.row("SELECT id FROM tenant WHERE id = $1", &args![tenant]).await?.is_none()
    {
        return Err(crate::auth::caller::no_such_tenant(tenant));
    }
    let id = uuid::Uuid::now_v7().simple().to_string();
    let entry = Entry {
        request: id.clone(),
        subject: new.subject.clone(),
        tenant: new.tenant.clone(),
        requested_at_ms: clock::now_ms(),
    };
    insert(tx, &entry, services).await?;
    get(tx, &id).await
}

async fn insert(tx: &mut Tx, entry: &Entry, services: &[String]) -> Result<(), Problem> {
    let Entry { request: id, subject, tenant, requested_at_ms } = entry;
    tx.execute(
        "INSERT INTO erasure (id, subject, tenant, requested_at, deadline_at, version) \
         VALUES ($1, $2, $3, $4, $5, 1)",
        &args![id, subject, tenant, *requested_at_ms, requested_at_ms + DEADLINE_MS],
    )
    .await?;
    for service in services {
        tx.execute(
            "INSERT INTO erasure_service (erasure, service, state, rows_erased) VALUES ($1, $2, 'waiting', 0)",
            &args![id, service],
        )
        .await?;
    }
    nodes::ask(tx, id).await?;
    ask(tx, id, subject, tenant.as_deref())
}

/// Posts the request to all services.
fn ask(tx: &mut Tx, id: &str, subject: &str, tenant: Option<&str>) -> Result<(), Problem> {
    let data = Requested { request: id.to_owned(), subject: subject.to_owned() };
    post(tx, &Post { kind: REQUESTED, subject: Some(subject), tenant, data: &data })
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, subject, tenant, requested_at, deadline_at, completed_at, version FROM erasure ",
            $rest
        )
    };
}

async fn read(tx: &mut Tx, row: &Row) -> Result<Erasure, Problem> {
    let id = row.text("id")?;
    let sql = "SELECT service, state, rows_erased, reason, answered_at FROM erasure_service \
               WHERE erasure = $1 ORDER BY service";
    let mut services = Vec::new();
    for row in tx.rows(sql, &args![&id]).await? {
        services.push(ServiceErasure {
            service: row.text("service")?,
            state: row.word("state")?,
            count: row.number("rows_erased")?,
            reason: row.opt_text("reason")?,
            answered_at_ms: row.opt_number("answered_at")?,
        });
    }
    let deadline_at_ms = row.number("deadline_at")?;
    let state = match row.opt_number("completed_at")? {
        Some(_) => ErasureState::Completed,
        None if clock::now_ms() > deadline_at_ms => ErasureState::Overdue,
        None => ErasureState::Open,
    };
    Ok(Erasure {
        id,
        subject: row.text("subject")?,
        tenant: row.opt_text("tenant")?,
        requested_at_ms: row.number("requested_at")?,
        deadline_at_ms,
        state,
        services,
        version: row.number("version")?,
    })
}

pub async fn get(tx: &mut Tx, id: &str) -> Result<Erasure, Problem> {
    let row = tx.row(select!("WHERE id = $1"), &args![id]).await?.ok_or_else(|| no_such(id))?;
    read(tx, &row).await
}

/// Newest first; `tenant`: only its own.
pub async fn list(
    tx: &mut Tx,
    tenant: Option<&str>,
    cursor: Option<&str>,
    size: u32,
) -> Result<Page<Erasure>, Problem> {
    // Ids rise with time; `~` is behind every letter of one.
    let sql = select!("WHERE id < $1 AND ($2 = '' OR tenant = $2) ORDER BY id DESC LIMIT $3");
    let rows = tx.rows(sql, &args![cursor.unwrap_or("~"), tenant.unwrap_or(""), size + 1]).await?;
    let mut erasures = Vec::with_capacity(rows.len());
    for row in &rows {
        erasures.push(read(tx, row).await?);
    }
    Ok(page(erasures, size, |erasure| erasure.id.clone()))
}

/// A service's word. Repeated it changes nothing; the last open one completes the request.
pub async fn answer(tx: &mut Tx, id: &str, answer: &ErasureAnswer) -> Result<Erasure, Problem> {
    let service = match nodes::of(&answer.service) {
        Some(node) => nodes::service(&names::plain("service", node)?),
        None => names::plain("service", &answer.service)?,
    };
    let reason =
        answer.reason.as_deref().map(|text| names::title("reason", text, REASON_MOST)).transpose()?;
    match answer.state {
        ServiceState::Waiting => {
            return Err(Problem::bad_field("state", "an answer is erased or skipped"));
        }
        ServiceState::Skipped if reason.as_deref().is_none_or(|reason| reason.trim().is_empty()) => {
            let detail =
                "what is skipped needs its legal reason, for instance \"invoices, 10 years: AO §147\"";
            return Err(Problem::bad_field("reason", detail));
        }
        _ => {}
    }
    // Holds the request: of two last answers one completes it.
    let sql = "UPDATE erasure SET version = version + 1 WHERE id = $1 RETURNING version";
    tx.row(sql, &args![id]).await?.ok_or_else(|| no_such(id))?;
    let now = clock::now_ms();
    let written = tx
        .execute(
            "UPDATE erasure_service SET state = $3, rows_erased = $4, reason = $5, answered_at = $6 \
             WHERE erasure = $1 AND service = $2",
            &args![id, &service, answer.state.name(), answer.count, reason, now],
        )
        .await?;
    if written == 0 {
        return Err(Problem::bad_field("service", format!("{service} is not asked for erasures")));
    }
    let sql = "UPDATE erasure SET completed_at = $2 WHERE id = $1 AND completed_at IS NULL AND NOT EXISTS \
               (SELECT 1 FROM erasure_service WHERE erasure = $1 AND state = 'waiting')";
    let completed = tx.execute(sql, &args![id, now]).await? > 0;
    let erasure = get(tx, id).await?;
    if completed {
        let told = Post {
            kind: "erasure.completed",
            subject: Some(&erasure.subject),
            tenant: erasure.tenant.as_deref(),
            data: &Requested { request: erasure.id.clone(), subject: erasure.subject.clone() },
        };
        post(tx, &told)?;
    }
    Ok(erasure)
}

/// After a restore from a backup erased rows are back: every request since `since_ms` is asked again, of all services.
pub async fn replay(tx: &mut Tx, since_ms: u64) -> Result<u64, Problem> {
    let sql = "UPDATE erasure SET completed_at = NULL, version = version + 1 WHERE requested_at >= $1 \
               RETURNING id, subject, tenant";
    let rows = tx.rows(sql, &args![since_ms]).await?;
    for row in &rows {
        let id = row.text("id")?;
        let sql = "UPDATE erasure_service SET state = 'waiting', answered_at = NULL WHERE erasure = $1";
        tx.execute(sql, &args![&id]).await?;
        nodes::ask(tx, &id).await?;
        ask(tx, &id, &row.text("subject")?, row.opt_text("tenant")?.as_deref())?;
    }
    Ok(rows.len() as u64)
}

/// How many requests are open, and how many of them past their deadline.
pub async fn open(tx: &mut Tx) -> Result<(u64, u64), Problem> {
    let sql = "SELECT COUNT(*) AS open, CAST(COALESCE(SUM(CASE WHEN deadline_at < $1 THEN 1 ELSE 0 END), 0) \
               AS BIGINT) AS overdue FROM erasure WHERE completed_at IS NULL";
    let row = tx.row(sql, &args![clock::now_ms()]).await?;
    row.map_or(Ok((0, 0)), |row| Ok((row.number("open")?, row.number("overdue")?)))
}
