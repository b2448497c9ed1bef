//! Finds every difference between the region's rows and the index.

use std::collections::HashMap;

use dormouse_api::registry::locate::{Difference, DifferenceKind};

use super::refresh::IndexError;
use super::{Entry, Index, PREFIX};
use crate::app::App;
use crate::names::ServerName;
use crate::registry::servers;
use crate::store::Scope;

const PAGE: u32 = 500;

/// All of this region's entries, by server.
async fn indexed(index: &Index, region: &str) -> Result<HashMap<String, Entry>, IndexError> {
    let mut connection = index.connection();
    let (mut cursor, mut entries) = (0u64, HashMap::new());
    loop {
        let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(format!("{PREFIX}*"))
            .arg("COUNT")
            .arg(PAGE)
            .query_async(&mut connection)
            .await?;
        if !keys.is_empty() {
            let mut pipe = redis::pipe();
            for key in &keys {
                pipe.cmd("HGET").arg(key).arg("entry");
            }
            let texts: Vec<Option<String>> = pipe.query_async(&mut connection).await?;
            for entry in
                texts.into_iter().flatten().filter_map(|text| serde_json::from_str::<Entry>(&text).ok())
            {
                if entry.region == region && !entry.deleted {
                    entries.insert(entry.server.clone(), entry);
                }
            }
        }
        if next == 0 {
            return Ok(entries);
        }
        cursor = next;
    }
}

pub async fn differences(app: &App, index: &Index) -> Result<Vec<Difference>, IndexError> {
    let mut entries = indexed(index, &app.region.name).await?;
    let (mut found, mut after) = (Vec::new(), None::<ServerName>);
    loop {
        let mut tx = app.db.read(&Scope::Region).await?;
        let page = servers::all_after(&mut tx, &app.region.name, after.as_ref(), PAGE).await?;
        tx.commit().await?;
        for (known, deleted) in &page {
            let truth = Entry::of(known, &app.region.url, *deleted);
            let kind = match entries.remove(&truth.server) {
                _ if *deleted => continue,
                Some(entry) if entry == truth => continue,
                Some(_) => DifferenceKind::Old,
                None => match index.get(&truth.server).await? {
                    Some(_) => DifferenceKind::Foreign,
                    None => DifferenceKind::Missing,
                },
            };
            found.push(Difference { server: truth.server, kind });
        }
        match page.last() {
            Some((known, _)) if page.len() == PAGE as usize => {
                after = Some(ServerName::parse("name", &known.server.name)?);
            }
            _ => break,
        }
    }
    found.extend(entries.into_keys().map(|server| Difference { server, kind: DifferenceKind::Ghost }));
    Ok(found)
}

/// Writes what is missing or old, and removes this region's ghosts; how many differences are left is for a new check.
pub async fn repair(app: &App, index: &Index) -> Result<(), IndexError> {
    super::refresh::all(app, index).await?;
    for Difference { server, kind } in differences(app, index).await? {
        if kind == DifferenceKind::Ghost {
            let key = format!("{PREFIX}{server}");
            redis::cmd("DEL").arg(key).query_async::<()>(&mut index.connection()).await?;
        }
    }
    Ok(())
}
