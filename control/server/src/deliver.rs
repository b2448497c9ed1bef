//! Commands and erasures on their way: one look at the database for the commands of all nodes of this instance, one
//! stream a node.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use tokio::sync::mpsc;

use crate::app::App;
use crate::erasure;
use crate::registry::commands::{self, Addressed};
use crate::store::{Scope, StoreError};

/// A command that another instance took is seen after this.
const LOOK: Duration = Duration::from_secs(1);
/// A command without an answer is told again: at least once.
const AGAIN: Duration = Duration::from_secs(5);

/// Keeps `app.waiting` up to date, and ends what is late.
pub async fn look(app: Arc<App>) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = app.ordered.notified() => {}
        }
        match look_once(&app).await {
            Ok(waiting) => {
                app.waiting.send_if_modified(|known| {
                    // Also the same set again: what got no answer is told again.
                    let news = !waiting.is_empty() || !known.is_empty();
                    *known = Arc::new(waiting);
                    news
                });
            }
            Err(error) => tracing::warn!(%error, "cannot look for commands; tried again"),
        }
    }
}

async fn look_once(app: &App) -> Result<Vec<Addressed>, StoreError> {
    if app.waiting.receiver_count() == 0 {
        return Ok(Vec::new());
    }
    let mut tx = app.db.read(&Scope::Region).await?;
    let waiting = commands::waiting(&mut tx).await?;
    tx.commit().await?;
    Ok(waiting)
}

/// Until the node goes or the program stops.
pub async fn to_node(app: Arc<App>, node: String, beat: Duration, lines: Lines) {
    let (mut waiting, mut stopping) = (app.waiting.subscribe(), app.stopping.subscribe());
    let mut erasures = app.erasures_asked.subscribe();
    app.ordered.notify_one();
    let mut told: HashMap<String, Instant> = HashMap::new();
    let mut beats = tokio::time::interval(beat);
    loop {
        let erase = tokio::select! {
            changed = waiting.changed() => if changed.is_err() { return } else { false },
            _ = beats.tick() => if lines.send(Ok(Bytes::from_static(b"\n"))).await.is_err() { return } else { true },
            _ = erasures.changed() => true,
            () = lines.closed() => return,
            _ = stopping.changed() => return,
        };
        // With every beat again, until it is answered; another instance's too.
        if erase && tell_erasures(&app, &node, &lines).await.is_none() {
            return;
        }
        let all = waiting.borrow_and_update().clone();
        told.retain(|id, _| all.iter().any(|one| one.command.id == *id));
        for Addressed { command, .. } in all.iter().filter(|one| one.node == node) {
            let now = Instant::now();
            if told.get(&command.id).is_some_and(|at| now.duration_since(*at) < AGAIN) {
                continue;
            }
            if told.insert(command.id.clone(), now).is_none() {
                app.metrics.command_delivered();
            }
            if tell(command, &lines).await.is_none() {
                return;
            }
        }
    }
}

type Lines = mpsc::Sender<Result<Bytes, Infallible>>;

/// `None`: the node is gone.
async fn tell(line: &impl serde::Serialize, lines: &Lines) -> Option<()> {
    let Ok(mut line) = serde_json::to_vec(line) else { return Some(()) };
    line.push(b'\n');
    lines.send(Ok(line.into())).await.ok()
}

async fn tell_erasures(app: &App, node: &str, lines: &Lines) -> Option<()> {
    let read = async || {
        let mut tx = app.db.read(&Scope::Region).await?;
        let waiting = erasure::nodes::waiting(&mut tx, node).await?;
        tx.commit().await?;
        Ok::<_, StoreError>(waiting)
    };
    match read().await {
        Ok(waiting) => {
            for erasure in &waiting {
                tell(erasure, lines).await?;
            }
        }
        Err(error) => tracing::warn!(%error, node, "cannot look for erasures; tried again"),
    }
    Some(())
}
