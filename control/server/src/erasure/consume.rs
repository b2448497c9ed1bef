//! The first consumer of erasures: the control plane's own tables.

use std::sync::Arc;
use std::time::Duration;

use dormouse_api::Problem;
use dormouse_api::registry::bus::BusEvent;
use dormouse_api::registry::erasure::{ErasureAnswer, NOBODY, ServiceState};

use super::{OWN, REQUESTED, Requested, answer};
use crate::app::App;
use crate::bus::consume::Group;
use crate::bus::{consume, read, sequence};
use crate::failpoint;
use crate::store::{Scope, Tx, args};

const BATCH: u32 = 100;
/// So many events of other kinds are passed before it is written down: at the next start they are looked through again,
/// and until then the outbox keeps them.
const PASSED: u64 = 1000;
const AGAIN: Duration = Duration::from_secs(1);
/// Another instance's event is taken over after this.
const IDLE: Duration = Duration::from_secs(30);

/// Without Redis: from the outbox, each event and the position after it in one transaction.
pub async fn from_outbox(app: Arc<App>) {
    let mut sequenced = app.sequenced.subscribe();
    let mut searched = 0;
    loop {
        sequenced.borrow_and_update();
        if let Err(error) = catch_up(&app, &mut searched).await {
            tracing::warn!(%error, "erasures wait; tried again");
            tokio::time::sleep(AGAIN).await;
            continue;
        }
        if sequenced.changed().await.is_err() {
            return;
        }
    }
}

/// `searched`: up to this position there is nothing left to do.
async fn catch_up(app: &App, searched: &mut u64) -> Result<(), Problem> {
    loop {
        let mut tx = app.db.read(&Scope::Region).await?;
        let marked = read::position(&mut tx, OWN).await?;
        let from = marked.max(*searched);
        let events = read::after(&mut tx, &app.region.name, from, REQUESTED, BATCH).await?;
        let last = sequence::last(&mut tx).await?;
        tx.commit().await?;
        let are_all = events.len() < BATCH as usize;
        for event in events {
            let mut tx = app.db.write(&Scope::Region).await?;
            failpoint::arm("erase");
            erase(&mut tx, &event).await?;
            read::set_position(&mut tx, OWN, event.position).await?;
            tx.commit().await?;
            failpoint::disarm();
            failpoint::at("erasure-committed");
            app.posted.notify_one();
        }
        if !are_all {
            continue;
        }
        *searched = last.max(from);
        if searched.saturating_sub(marked) >= PASSED {
            let mut tx = app.db.write(&Scope::Region).await?;
            read::set_position(&mut tx, OWN, *searched).await?;
            tx.commit().await?;
        }
        return Ok(());
    }
}

/// With Redis: as any other service, by a consumer group.
pub async fn from_stream(app: Arc<App>, client: redis::Client) {
    let group = Group {
        region: app.region.name.clone(),
        name: OWN.to_owned(),
        consumer: uuid::Uuid::new_v4().simple().to_string(),
        idle: IDLE,
        kind: Some(format!("dormouse.{REQUESTED}")),
    };
    loop {
        let handled = consume::run(&client, &group, |event| handle(app.clone(), event)).await;
        if let Err(error) = handled {
            tracing::warn!(%error, "erasures wait for Redis; tried again");
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn handle(app: Arc<App>, event: BusEvent) -> Result<(), Problem> {
    let mut tx = app.db.write(&Scope::Region).await?;
    failpoint::arm("erase");
    erase(&mut tx, &event).await?;
    tx.commit().await?;
    failpoint::disarm();
    app.posted.notify_one();
    Ok(())
}

/// Makes every row that names the subject anonymous, and says so. Again it finds nothing and says the same.
async fn erase(tx: &mut Tx, event: &BusEvent) -> Result<(), Problem> {
    let Requested { request, subject } = serde_json::from_value(event.data.clone())
        .map_err(|error| Problem::internal(format!("an erasure that is none: {error}")))?;
    // A tenant's request is about its own rows, the region's about all.
    let tenant = event.tenant.as_deref().unwrap_or("");
    let owner = format!("\"owner\":\"{subject}\"");
    let nobody = format!("\"owner\":\"{NOBODY}\"");
    let mut count = 0;
    for sql in [
        "UPDATE threshold_change SET changed_by = $3 WHERE changed_by = $2 AND ($1 = '' OR tenant = $1)",
        "UPDATE api_key SET title = $3 WHERE title = $2 AND ($1 = '' OR tenant = $1)",
    ] {
        count += tx.execute(sql, &args![tenant, &subject, NOBODY]).await?;
    }
    for sql in [
        "UPDATE server_report SET kept = REPLACE(kept, $2, $3) \
         WHERE POSITION_OF(kept, $2) > 0 AND ($1 = '' OR tenant = $1)",
        "UPDATE command SET asked = REPLACE(asked, $2, $3) \
         WHERE POSITION_OF(asked, $2) > 0 AND ($1 = '' OR tenant = $1)",
    ] {
        // The one function that the two databases name differently.
        let sql = if tx.is_postgres() {
            sql.replace("POSITION_OF", "strpos")
        } else {
            sql.replace("POSITION_OF", "instr")
        };
        count += tx.execute(sqlx::AssertSqlSafe(sql), &args![tenant, &owner, &nobody]).await?;
    }
    let sql = "DELETE FROM idempotency WHERE subject = $1";
    count += tx.execute(sql, &args![&subject]).await?;
    let said = ErasureAnswer { service: OWN.to_owned(), state: ServiceState::Erased, count, reason: None };
    match answer(tx, &request, &said).await {
        // Of a request that a restore took away there is nothing to complete.
        Err(problem) if problem.status == 404 => Ok(()),
        answered => answered.map(drop),
    }
}
