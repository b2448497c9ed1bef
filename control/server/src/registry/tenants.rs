//! Tenants.

use dormouse_api::registry::Page;
use dormouse_api::registry::tenant::{ChangeTenant, NewTenant, Tenant};
use dormouse_api::{Code, Problem};

use super::{matches, page};
use crate::auth::caller::no_such_tenant;
use crate::clock;
use crate::names;
use crate::outbox::{Post, post};
use crate::store::{Row, StoreError, Tx, args};

/// Of a tenant that nobody limited.
const SERVER_LIMIT: u32 = 1000;
const SERVER_LIMIT_MOST: u32 = 1_000_000;
const TITLE_MOST: usize = 200;

fn read(row: &Row) -> Result<Tenant, StoreError> {
    Ok(Tenant {
        id: row.text("id")?,
        title: row.text("title")?,
        server_limit: u32::try_from(row.number("server_limit")?).unwrap_or(u32::MAX),
        created_at_ms: row.number("created_at")?,
        version: row.number("version")?,
    })
}

fn limit(asked: u32) -> Result<u32, Problem> {
    if asked <= SERVER_LIMIT_MOST {
        return Ok(asked);
    }
    Err(Problem::bad_field("server_limit", format!("server_limit is at most {SERVER_LIMIT_MOST}")))
}

pub async fn get(tx: &mut Tx, id: &str) -> Result<Tenant, Problem> {
    let sql = "SELECT id, title, server_limit, created_at, version FROM tenant WHERE id = $1";
    let row = tx.row(sql, &args![id]).await?;
    row.map(|row| read(&row)).transpose()?.ok_or_else(|| no_such_tenant(id))
}

/// In the order of their names, after `cursor`; `own`: that one alone.
pub async fn list(
    tx: &mut Tx,
    own: Option<&str>,
    cursor: Option<&str>,
    size: u32,
) -> Result<Page<Tenant>, Problem> {
    let sql = "SELECT id, title, server_limit, created_at, version FROM tenant \
               WHERE id > $1 AND ($2 = '' OR id = $2) ORDER BY id LIMIT $3";
    let rows = tx.rows(sql, &args![cursor.unwrap_or(""), own.unwrap_or(""), size + 1]).await?;
    let tenants = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(page(tenants, size, |tenant| tenant.id.clone()))
}

pub async fn create(tx: &mut Tx, new: &NewTenant) -> Result<Tenant, Problem> {
    let id = names::tenant("id", &new.id)?;
    let title = names::title("title", new.title.as_deref().unwrap_or(&id), TITLE_MOST)?;
    let server_limit = limit(new.server_limit.unwrap_or(SERVER_LIMIT))?;
    let made = tx
        .execute(
            "INSERT INTO tenant (id, title, server_limit, created_at, version) VALUES ($1, $2, $3, $4, 1) \
             ON CONFLICT DO NOTHING",
            &args![&id, title, server_limit, clock::now_ms()],
        )
        .await?;
    if made == 0 {
        return Err(Problem::refused(format!("a tenant is called {id} already")));
    }
    let tenant = get(tx, &id).await?;
    tell(tx, "tenant.created", &tenant)?;
    Ok(tenant)
}

pub async fn change(
    tx: &mut Tx,
    id: &str,
    change: &ChangeTenant,
    expected: Option<u64>,
) -> Result<Tenant, Problem> {
    let title = change.title.as_deref().map(|title| names::title("title", title, TITLE_MOST)).transpose()?;
    let server_limit = change.server_limit.map(limit).transpose()?;
    let sql = "UPDATE tenant SET title = COALESCE($2, title), server_limit = COALESCE($3, server_limit), \
               version = version + 1 WHERE id = $1 \
               RETURNING id, title, server_limit, created_at, version";
    let row = tx.row(sql, &args![id, title, server_limit.map(u64::from)]).await?;
    let tenant = row.map(|row| read(&row)).transpose()?.ok_or_else(|| no_such_tenant(id))?;
    matches(expected, tenant.version - 1)?;
    tell(tx, "tenant.changed", &tenant)?;
    Ok(tenant)
}

/// Only a tenant without servers.
pub async fn delete(tx: &mut Tx, id: &str, expected: Option<u64>) -> Result<(), Problem> {
    let sql = "UPDATE tenant SET version = version + 1 WHERE id = $1 \
               RETURNING id, title, server_limit, created_at, version, servers";
    let row = tx.row(sql, &args![id]).await?.ok_or_else(|| no_such_tenant(id))?;
    let tenant = read(&row)?;
    matches(expected, tenant.version - 1)?;
    let servers = row.number("servers")?;
    if servers > 0 {
        return Err(Problem::new(Code::Refused, format!("{id} has {servers} servers"))
            .with_remedy("delete its servers first"));
    }
    // The graves of its servers, the last thing that names it. What the index knew of them has faded or was told.
    for sql in [
        "DELETE FROM server WHERE tenant = $1",
        "DELETE FROM server_report WHERE tenant = $1",
        "DELETE FROM threshold WHERE tenant = $1",
        "DELETE FROM threshold_change WHERE tenant = $1",
        "DELETE FROM api_key WHERE tenant = $1",
        "DELETE FROM tenant WHERE id = $1",
    ] {
        tx.execute(sql, &args![id]).await?;
    }
    tell(tx, "tenant.deleted", &tenant)
}

fn tell(tx: &mut Tx, kind: &'static str, tenant: &Tenant) -> Result<(), Problem> {
    post(tx, &Post { kind, subject: Some(&tenant.id), tenant: Some(&tenant.id), data: tenant })
}
