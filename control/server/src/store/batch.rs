//! SQLite's writers, many to a commit.
//!
//! SQLite has one writer, and each commit waits for the disk. So the writers that are waiting when a transaction
//! begins go through it one after the other, each in a savepoint of its own: what one of them does is kept or undone
//! by itself. Then all is committed at once, and only then is any of them told that it is done. A writer sees what
//! those before it in its batch did, although it is not on the disk yet; if the commit fails, it fails for all.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use sqlx::{Sqlite, SqliteConnection, SqlitePool, Transaction};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};

use super::{PATIENCE, StoreError};

const BEGIN: &str = "BEGIN IMMEDIATE";
const SAVE: &str = "SAVEPOINT writer";
const KEEP: &str = "RELEASE writer";
const UNDO: &str = "ROLLBACK TO writer";

/// The queue of writers.
#[derive(Clone, Debug)]
pub struct Writers {
    pool: SqlitePool,
    turn: Arc<Mutex<Option<Batch>>>,
}

type Outcome = Option<Result<(), Arc<sqlx::Error>>>;

#[derive(Debug)]
struct Batch {
    tx: Transaction<'static, Sqlite>,
    /// A writer is, or left, somewhere between its savepoint and that one's release.
    unfinished: bool,
    outcome: watch::Sender<Outcome>,
}

/// One writer's turn. Dropped without [`Write::commit`] what it did is undone.
pub struct Write {
    turn: OwnedMutexGuard<Option<Batch>>,
}

impl Writers {
    /// `pool`: of one connection.
    pub fn new(pool: SqlitePool) -> Self {
        Self { pool, turn: Arc::default() }
    }

    pub fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    pub async fn begin(&self) -> Result<Write, StoreError> {
        let turn = tokio::time::timeout(PATIENCE, self.turn.clone().lock_owned()).await;
        let mut turn = turn.map_err(|_| sqlx::Error::PoolTimedOut)?;
        if turn.is_none() {
            let tx = self.pool.begin_with(BEGIN).await?;
            *turn = Some(Batch { tx, unfinished: false, outcome: watch::Sender::default() });
            // Its place in the queue is behind everybody who waits now.
            tokio::spawn(end(self.turn.clone()));
        }
        let mut write = Write { turn };
        let batch = write.batch()?;
        tidy(batch).await?;
        batch.unfinished = true;
        sqlx::query(SAVE).execute(&mut *batch.tx).await?;
        Ok(write)
    }
}

/// Undoes what a writer left that failed or hung up.
async fn tidy(batch: &mut Batch) -> Result<(), sqlx::Error> {
    if !batch.unfinished {
        return Ok(());
    }
    match sqlx::query(UNDO).execute(&mut *batch.tx).await {
        Ok(_) => {
            sqlx::query(KEEP).execute(&mut *batch.tx).await?;
        }
        // It left before its savepoint was made, or after it was released.
        Err(error) if error.to_string().contains("no such savepoint") => {}
        Err(error) => return Err(error),
    }
    batch.unfinished = false;
    Ok(())
}

async fn end(turn: Arc<Mutex<Option<Batch>>>) {
    let mut turn = turn.lock().await;
    let Some(mut batch) = turn.take() else { return };
    let done = match tidy(&mut batch).await {
        Ok(()) => batch.tx.commit().await,
        // Dropped here, and so rolled back.
        Err(error) => Err(error),
    };
    batch.outcome.send_replace(Some(done.map_err(Arc::new)));
}

impl Write {
    fn batch(&mut self) -> Result<&mut Batch, sqlx::Error> {
        self.turn.as_mut().ok_or(sqlx::Error::WorkerCrashed)
    }

    /// Returns when it is on the disk.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        let batch = self.batch()?;
        sqlx::query(KEEP).execute(&mut *batch.tx).await?;
        batch.unfinished = false;
        let mut outcome = batch.outcome.subscribe();
        drop(self);
        let done = outcome.wait_for(Option::is_some).await.map_err(|_| sqlx::Error::WorkerCrashed)?;
        match &*done {
            Some(Err(error)) => Err(StoreError::Together(error.clone())),
            _ => Ok(()),
        }
    }
}

impl Deref for Write {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.turn.as_ref().expect("a turn is in a batch").tx
    }
}

impl DerefMut for Write {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.turn.as_mut().expect("a turn is in a batch").tx
    }
}
