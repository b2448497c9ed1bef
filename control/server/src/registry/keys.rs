//! Stored keys: what services, nodes and tenants log in with.

use dormouse_api::registry::Page;
use dormouse_api::registry::login::{Key, NewKey, Role};
use dormouse_api::{Code, Problem};

use super::{matches, page};
use crate::auth::caller::no_such_tenant;
use crate::clock;
use crate::names;
use crate::outbox::{Post, post};
use crate::store::{Row, StoreError, Tx, args};

const TITLE_MOST: usize = 200;

fn read(row: &Row) -> Result<Key, StoreError> {
    Ok(Key {
        id: row.text("id")?,
        title: row.text("title")?,
        role: row.word("role")?,
        tenant: row.opt_text("tenant")?,
        node: row.opt_text("node")?,
        created_at_ms: row.number("created_at")?,
        version: row.number("version")?,
    })
}

/// A key, and the hash of its secret.
pub async fn find(tx: &mut Tx, id: &str) -> Result<Option<(Key, String)>, StoreError> {
    let sql = "SELECT id, title, role, tenant, node, hash, created_at, version FROM api_key WHERE id = $1";
    let row = tx.row(sql, &args![id]).await?;
    row.map(|row| Ok((read(&row)?, row.text("hash")?))).transpose()
}

pub async fn list(tx: &mut Tx, cursor: Option<&str>, size: u32) -> Result<Page<Key>, Problem> {
    let sql = "SELECT id, title, role, tenant, node, created_at, version FROM api_key \
               WHERE id > $1 ORDER BY id LIMIT $2";
    let rows = tx.rows(sql, &args![cursor.unwrap_or(""), size + 1]).await?;
    let keys = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(page(keys, size, |key| key.id.clone()))
}

pub async fn create(tx: &mut Tx, new: &NewKey, hash: String) -> Result<Key, Problem> {
    let title = names::title("title", &new.title, TITLE_MOST)?;
    let needed = |field: &str, there: bool, wanted: bool| match (there, wanted) {
        (true, false) => Err(Problem::bad_field(field, format!("{field} goes with another role"))),
        (false, true) => {
            Err(Problem::bad_field(field, format!("the role {} needs {field}", new.role.name())))
        }
        _ => Ok(()),
    };
    needed("tenant", new.tenant.is_some(), new.role == Role::Tenant)?;
    needed("node", new.node.is_some(), new.role == Role::Node)?;
    if let Some(tenant) = &new.tenant
        && tx.row("SELECT id FROM tenant WHERE id = $1", &args![tenant]).await?.is_none()
    {
        return Err(no_such_tenant(tenant));
    }
    let node = new.node.as_deref().map(|node| names::plain("node", node)).transpose()?;
    let key = Key {
        // In the order of their making.
        id: uuid::Uuid::now_v7().simple().to_string(),
        title,
        role: new.role,
        tenant: new.tenant.clone(),
        node,
        created_at_ms: clock::now_ms(),
        version: 1,
    };
    tx.execute(
        "INSERT INTO api_key (id, title, role, tenant, node, hash, created_at, version) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, 1)",
        &args![&key.id, &key.title, key.role.name(), &key.tenant, &key.node, hash, key.created_at_ms],
    )
    .await?;
    post(tx, &Post { kind: "key.created", subject: Some(&key.id), tenant: None, data: &key })?;
    Ok(key)
}

/// Tokens that it got live on for their minutes.
pub async fn delete(tx: &mut Tx, id: &str, expected: Option<u64>) -> Result<(), Problem> {
    let sql = "DELETE FROM api_key WHERE id = $1 \
               RETURNING id, title, role, tenant, node, created_at, version";
    let row = tx.row(sql, &args![id]).await?;
    let missing = || Problem::new(Code::NotFound, format!("no key has the id {id}"));
    let key = row.map(|row| read(&row)).transpose()?.ok_or_else(missing)?;
    matches(expected, key.version)?;
    post(tx, &Post { kind: "key.deleted", subject: Some(&key.id), tenant: None, data: &key })
}
