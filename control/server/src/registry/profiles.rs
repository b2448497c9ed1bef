//! The registry's two layers of thresholds: games, and servers.

use dormouse_api::profile::{Explain, shown};
use dormouse_api::registry::Page;
use dormouse_api::registry::threshold::{Change, NewProfile, NodeProfiles, Profile, SetThreshold};
use dormouse_api::{Code, Problem};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{matches, page, servers};
use crate::clock;
use crate::names::{self, ServerName};
use crate::outbox::{Post, post};
use crate::store::{Tx, args};
use crate::thresholds::{layers, value};

const REASON_MOST: usize = 200;

/// What a layer belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Of {
    Profile(String),
    Server(ServerName),
}

impl Of {
    /// The tenant and the target of its rows; a game has no tenant.
    fn row(&self) -> (&str, &str) {
        match self {
            Self::Profile(name) => ("", name),
            Self::Server(name) => (&name.tenant, &name.name),
        }
    }
}

fn no_such(name: &str) -> Problem {
    Problem::no_such_profile(name)
}

async fn said(tx: &mut Tx, of: &Of) -> Result<layers::Said, Problem> {
    let (tenant, target) = of.row();
    let sql = "SELECT key, value FROM threshold WHERE tenant = $1 AND target = $2";
    let rows = tx.rows(sql, &args![tenant, target]).await?;
    rows.iter().map(|row| Ok((row.text("key")?, row.text("value")?))).collect()
}

async fn version_of(tx: &mut Tx, profile: &str) -> Result<u64, Problem> {
    let row = tx.row("SELECT version FROM profile WHERE name = $1", &args![profile]).await?;
    Ok(row.ok_or_else(|| no_such(profile))?.number("version")?)
}

/// `tenant`: only its servers are counted.
pub async fn list(
    tx: &mut Tx,
    tenant: Option<&str>,
    cursor: Option<&str>,
    size: u32,
) -> Result<Page<Profile>, Problem> {
    let sql = "SELECT p.name, p.version, (SELECT COUNT(*) FROM server s WHERE s.profile = p.name \
               AND s.deleted_at IS NULL AND ($3 = '' OR s.tenant = $3)) AS servers \
               FROM profile p WHERE p.name > $1 ORDER BY p.name LIMIT $2";
    let rows = tx.rows(sql, &args![cursor.unwrap_or(""), size + 1, tenant.unwrap_or("")]).await?;
    let mut profiles = Vec::with_capacity(rows.len());
    for row in &rows {
        let name = row.text("name")?;
        let limits = said(tx, &Of::Profile(name.clone())).await?;
        let limits = limits.into_iter().map(|(key, value)| (key, shown(&value))).collect();
        profiles.push(Profile {
            name,
            limits,
            servers: row.number("servers")?,
            version: row.number("version")?,
        });
    }
    Ok(page(profiles, size, |profile| profile.name.clone()))
}

pub async fn create(tx: &mut Tx, new: &NewProfile) -> Result<Profile, Problem> {
    let name = names::plain("name", &new.name)?;
    let sql = "INSERT INTO profile (name, version) VALUES ($1, 1) ON CONFLICT DO NOTHING";
    if tx.execute(sql, &args![&name]).await? == 0 {
        return Err(Problem::refused(format!("a profile is called {name} already")));
    }
    let profile = Profile { name, limits: layers::Said::new(), servers: 0, version: 1 };
    let told = Post { kind: "profile.created", subject: Some(&profile.name), tenant: None, data: &profile };
    post(tx, &told)?;
    Ok(profile)
}

/// Only one that no server uses.
pub async fn delete(tx: &mut Tx, name: &str, expected: Option<u64>) -> Result<(), Problem> {
    matches(expected, version_of(tx, name).await?)?;
    let sql = "DELETE FROM profile WHERE name = $1 AND NOT EXISTS \
               (SELECT 1 FROM server WHERE profile = $1 AND deleted_at IS NULL)";
    if tx.execute(sql, &args![name]).await? == 0 {
        return Err(Problem::refused(format!("servers use the profile {name}")));
    }
    tx.execute("DELETE FROM threshold WHERE tenant = '' AND target = $1", &args![name]).await?;
    post(tx, &Post { kind: "profile.deleted", subject: Some(name), tenant: None, data: &name })
}

/// Every layer, and the version of the thing that it is about.
pub async fn explain(tx: &mut Tx, region: &str, of: &Of) -> Result<(Explain, u64), Problem> {
    match of {
        Of::Profile(name) => {
            let version = version_of(tx, name).await?;
            let settings = layers::explain(&said(tx, of).await?, None);
            Ok((Explain { name: name.clone(), profile: name.clone(), settings }, version))
        }
        Of::Server(name) => {
            let server = servers::get(tx, region, name).await?.server;
            let game = said(tx, &Of::Profile(server.profile.clone())).await?;
            let settings = layers::explain(&game, Some(&said(tx, of).await?));
            Ok((Explain { name: server.name, profile: server.profile, settings }, server.version))
        }
    }
}

#[derive(Serialize)]
struct Told<'a> {
    key: &'a str,
    value: Option<String>,
}

/// Writes one key of a layer, or with `value = None` removes it.
pub async fn set(
    tx: &mut Tx,
    of: &Of,
    by: &str,
    change: &SetThreshold,
    remove: bool,
    expected: Option<u64>,
) -> Result<(), Problem> {
    let reason =
        change.reason.as_deref().map(|reason| names::title("reason", reason, REASON_MOST)).transpose()?;
    let new = if remove { None } else { Some(value::canonical(&change.key, &change.value)?) };
    let (tenant, target) = of.row();
    let now = clock::now_ms();
    // First the thing itself: its version rises, and its row is held until the commit.
    let (sql, missing) = match of {
        Of::Profile(name) => (
            "UPDATE profile SET version = version + 1 WHERE $1 = '' AND name = $2 RETURNING version",
            no_such(name),
        ),
        Of::Server(name) => (
            "UPDATE server SET version = version + 1 \
             WHERE tenant = $1 AND name = $2 AND deleted_at IS NULL RETURNING version",
            servers::no_such(name),
        ),
    };
    let row = tx.row(sql, &args![tenant, target]).await?.ok_or(missing)?;
    matches(expected, row.number("version")? - 1)?;
    let sql = "SELECT value FROM threshold WHERE tenant = $1 AND target = $2 AND key = $3";
    let old = tx.row(sql, &args![tenant, target, &change.key]).await?;
    let old = old.map(|row| row.text("value")).transpose()?;
    match &new {
        Some(value) => {
            tx.execute(
                "INSERT INTO threshold (tenant, target, key, value, changed_at) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (tenant, target, key) DO UPDATE SET value = excluded.value, \
                 changed_at = excluded.changed_at",
                &args![tenant, target, &change.key, value, now],
            )
            .await?;
        }
        None if old.is_none() => {
            let detail = format!("{} is not set in this layer", change.key);
            return Err(Problem::new(Code::NotFound, detail));
        }
        None => {
            let sql = "DELETE FROM threshold WHERE tenant = $1 AND target = $2 AND key = $3";
            tx.execute(sql, &args![tenant, target, &change.key]).await?;
        }
    }
    tx.execute(
        "INSERT INTO threshold_change (tenant, target, key, old_value, new_value, changed_by, reason, changed_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        &args![tenant, target, &change.key, &old, &new, by, &reason, now],
    )
    .await?;
    let (kind, subject) = match of {
        Of::Profile(name) => ("profile.changed", name.clone()),
        Of::Server(name) => ("server.limits", name.to_string()),
    };
    let data = &Told { key: &change.key, value: new.as_deref().map(shown) };
    let tenant = (!tenant.is_empty()).then_some(tenant);
    post(tx, &Post { kind, subject: Some(&subject), tenant, data })
}

/// Newest first; `cursor` is a row's place in the history.
pub async fn history(tx: &mut Tx, of: &Of, cursor: Option<u64>, size: u32) -> Result<Page<Change>, Problem> {
    let (tenant, target) = of.row();
    let sql = "SELECT entry, key, old_value, new_value, changed_by, reason, changed_at FROM threshold_change \
               WHERE tenant = $1 AND target = $2 AND entry < $3 ORDER BY entry DESC LIMIT $4";
    let before = cursor.unwrap_or(i64::MAX.unsigned_abs());
    let rows = tx.rows(sql, &args![tenant, target, before, size + 1]).await?;
    let mut changes = Vec::with_capacity(rows.len());
    for row in &rows {
        let change = Change {
            at_ms: row.number("changed_at")?,
            by: row.text("changed_by")?,
            key: row.text("key")?,
            old: row.opt_text("old_value")?.as_deref().map(shown),
            new: row.opt_text("new_value")?.as_deref().map(shown),
            reason: row.opt_text("reason")?,
        };
        changes.push((row.number("entry")?, change));
    }
    let Page { items, next } = page(changes, size, |(entry, _)| entry.to_string());
    Ok(Page { items: items.into_iter().map(|(_, change)| change).collect(), next })
}

/// Both layers of everything that runs on a node.
pub async fn of_node(tx: &mut Tx, node: &str) -> Result<NodeProfiles, Problem> {
    let mut answer = NodeProfiles::default();
    let games = "SELECT t.target, t.key, t.value FROM threshold t WHERE t.tenant = ''";
    for row in tx.rows(games, &[]).await? {
        let layer = answer.profiles.entry(row.text("target")?).or_default();
        layer.insert(row.text("key")?, row.text("value")?);
    }
    let own = "SELECT t.tenant, t.target, t.key, t.value FROM threshold t \
               JOIN server s ON s.tenant = t.tenant AND s.name = t.target \
               WHERE s.node = $1 AND s.deleted_at IS NULL";
    for row in tx.rows(own, &args![node]).await? {
        let name = format!("{}/{}", row.text("tenant")?, row.text("target")?);
        answer.servers.entry(name).or_default().insert(row.text("key")?, row.text("value")?);
    }
    let text = serde_json::to_vec(&answer).map_err(|error| Problem::internal(error.to_string()))?;
    crate::hex(&Sha256::digest(text))[..32].clone_into(&mut answer.revision);
    Ok(answer)
}
