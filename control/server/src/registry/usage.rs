//! What servers used, by day.

use std::fmt::Write;

use dormouse_api::Problem;
use dormouse_api::registry::Page;
use dormouse_api::registry::usage::{By, Usage, UsageFilter};
use sqlx::AssertSqlSafe;

use super::{page, page_size};
use crate::clock;
use crate::names::{self, ServerName};
use crate::store::{Arg, Tx};

const DAY_MS: u64 = 86_400_000;
const DAYS: u64 = 30;

const SUMS: &str = "CAST(SUM(awake_ms) AS BIGINT) AS awake_ms, CAST(SUM(dozing_ms) AS BIGINT) AS dozing_ms, \
     CAST(SUM(deep_ms) AS BIGINT) AS deep_ms, \
     CAST(SUM(resident_mib_seconds) AS BIGINT) AS resident_mib_seconds, \
     CAST(SUM(saved_mib_seconds) AS BIGINT) AS saved_mib_seconds, CAST(SUM(wakes) AS BIGINT) AS wakes \
     FROM usage_day WHERE day >= $1 AND day <= $2";

/// Sums over whole days, a row a server or a tenant.
pub async fn list(tx: &mut Tx, tenant: Option<&str>, filter: &UsageFilter) -> Result<Page<Usage>, Problem> {
    let size = page_size(filter.limit)?;
    let to = filter.to_at_ms.unwrap_or_else(clock::now_ms);
    let from = filter.from_at_ms.unwrap_or_else(|| to.saturating_sub(DAYS * DAY_MS));
    let mut values: Vec<Arg> = vec![Arg::from(from / DAY_MS), Arg::from(to / DAY_MS)];
    let by_server = filter.by.unwrap_or_default() == By::Server;
    let key = if by_server { "tenant, name" } else { "tenant" };
    // Static pieces only; every value is bound.
    let mut sql = format!("SELECT {key}, {SUMS}");
    if let Some(tenant) = tenant {
        values.push(tenant.into());
        let _ = write!(sql, " AND tenant = ${}", values.len());
    }
    if let Some(cursor) = &filter.cursor {
        if by_server {
            let after = ServerName::parse("cursor", cursor)?;
            values.extend([after.tenant.into(), after.name.into()]);
            let _ = write!(sql, " AND (tenant, name) > (${}, ${})", values.len() - 1, values.len());
        } else {
            values.push(names::tenant("cursor", cursor)?.into());
            let _ = write!(sql, " AND tenant > ${}", values.len());
        }
    }
    values.push(Arg::from(size + 1));
    let _ = write!(sql, " GROUP BY {key} ORDER BY {key} LIMIT ${}", values.len());
    let mut items = Vec::new();
    for row in tx.rows(AssertSqlSafe(sql), &values).await? {
        let tenant = row.text("tenant")?;
        items.push(Usage {
            name: if by_server { format!("{tenant}/{}", row.text("name")?) } else { tenant },
            awake_ms: row.number("awake_ms")?,
            dozing_ms: row.number("dozing_ms")?,
            deep_ms: row.number("deep_ms")?,
            resident_mib_seconds: row.number("resident_mib_seconds")?,
            saved_mib_seconds: row.number("saved_mib_seconds")?,
            wakes: row.number("wakes")?,
        });
    }
    Ok(page(items, size, |usage| usage.name.clone()))
}
