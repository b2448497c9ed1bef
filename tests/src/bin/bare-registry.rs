//! What `scripts/bench control` compares the control plane with: one server read and changed, by axum and sqlx alone.
//!
//! The same rows and indexes (the registry's own migration), the same JSON, the same transactions and durability, the
//! same token check with the same cache. No tenancy, no ETag, no idempotency, no outbox, no rate limit, no row
//! security. With `--three-rows` a change on PostgreSQL writes an event and a kept answer too, as one more statement of
//! its transaction: what a write of the control plane costs if nobody reads them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::get;
use axum::{Json, Router};
use clap::Parser;
use dormouse_api::registry::server::{ChangeServer, Server, ServerReport};
use dormouse_control::auth::Caller;
use dormouse_control::auth::cache::TokenCache;
use dormouse_control::auth::keys::KeyRing;
use dormouse_control::clock;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::pool::PoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{PgPool, Postgres, Row, Sqlite, SqlitePool};

const SCHEMA: &str = include_str!("../../../control/server/migrations/0001_registry.sql");
/// As the control plane's.
const SQLITE_READERS: u32 = 4;
const POSTGRES_CONNECTIONS: u32 = 16;

const GET: &str = "SELECT s.tenant, s.name, s.profile, s.mode, s.node, s.memory_bytes, s.address, s.created_at, \
    s.changed_at, s.version, r.stage, r.since_at, r.flows, r.resident_bytes, r.size_bytes, r.last_player_at, r.kept, \
    r.note, r.reported_at FROM server s LEFT JOIN server_report r ON r.tenant = s.tenant AND r.name = s.name \
    WHERE s.tenant = $1 AND s.name = $2 AND s.deleted_at IS NULL";
const CHANGE: &str = "UPDATE server SET profile = COALESCE($3, profile), mode = COALESCE($4, mode), \
    node = COALESCE($5, node), memory_bytes = COALESCE($6, memory_bytes), address = COALESCE($7, address), \
    changed_at = $8, version = version + 1, sequence = sequence + 1 \
    WHERE tenant = $1 AND name = $2 AND deleted_at IS NULL";
const KEEP: &str = "WITH event AS (INSERT INTO outbox (id, kind, subject, tenant, data, created_at) \
    VALUES ($1, $2, $3, $4, $5, $6)) \
    INSERT INTO idempotency (subject, key, request, answer, created_at) VALUES ($7, $8, $9, $10, $6)";

#[derive(Parser)]
struct Args {
    #[arg(long)]
    database: String,
    #[arg(long)]
    keys: PathBuf,
    #[arg(long)]
    three_rows: bool,
}

struct App {
    three_rows: bool,
    read: Pool,
    write: Pool,
    keys: KeyRing,
    tokens: TokenCache,
}

#[derive(Clone)]
enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let (read, write) = open(&args.database).await?;
    let keys = KeyRing::open(&args.keys)?;
    let app = App { three_rows: args.three_rows, read, write, keys, tokens: TokenCache::default() };
    let router = Router::new().route("/v1/servers/{name}", get(look).patch(change)).with_state(Arc::new(app));
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, router).await?)
}

/// The pools of reads and of writes, with the registry's tables made.
async fn open(database: &str) -> Result<(Pool, Pool)> {
    if database.starts_with("postgres://") {
        let pool = PoolOptions::<Postgres>::new().max_connections(POSTGRES_CONNECTIONS);
        let pool = pool.test_before_acquire(false).connect(database).await?;
        let serial = "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY";
        sqlx::raw_sql(sqlx::AssertSqlSafe(SCHEMA.replace("{serial}", serial))).execute(&pool).await?;
        return Ok((Pool::Postgres(pool.clone()), Pool::Postgres(pool)));
    }
    let options = SqliteConnectOptions::new()
        .filename(database)
        .create_if_missing(true)
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let write = PoolOptions::<Sqlite>::new().max_connections(1).connect_with(options.clone()).await?;
    let serial = "INTEGER PRIMARY KEY AUTOINCREMENT";
    sqlx::raw_sql(sqlx::AssertSqlSafe(SCHEMA.replace("{serial}", serial))).execute(&write).await?;
    let read = PoolOptions::<Sqlite>::new().max_connections(SQLITE_READERS);
    let read = read.connect_with(options.pragma("query_only", "ON")).await?;
    Ok((Pool::Sqlite(read), Pool::Sqlite(write)))
}

macro_rules! server {
    ($row:expr) => {{
        let number = |column: &str| $row.try_get::<i64, _>(column).map(|number| number as u64);
        let report = match $row.try_get::<Option<String>, _>("stage")? {
            None => None,
            Some(stage) => Some(ServerReport {
                stage: parse(stage)?,
                since_at_ms: number("since_at")?,
                flows: number("flows")? as u32,
                resident_bytes: number("resident_bytes")?,
                size_bytes: number("size_bytes")?,
                last_player_at_ms: $row.try_get::<Option<i64>, _>("last_player_at")?.map(|at| at as u64),
                kept: None,
                note: $row.try_get("note")?,
                reported_at_ms: number("reported_at")?,
            }),
        };
        let (tenant, name): (String, String) = ($row.try_get("tenant")?, $row.try_get("name")?);
        Ok(Server {
            name: format!("{tenant}/{name}"),
            tenant,
            profile: $row.try_get("profile")?,
            mode: parse($row.try_get("mode")?)?,
            region: "bench".to_owned(),
            node: $row.try_get("node")?,
            memory_bytes: number("memory_bytes")?,
            address: $row.try_get("address")?,
            report,
            created_at_ms: number("created_at")?,
            changed_at_ms: number("changed_at")?,
            version: number("version")?,
        })
    }};
}

/// Reads one server in a transaction of `$pool`, after `$change` if there is one, which is kept under `$key` if there is
/// one.
macro_rules! transaction {
    ($pool:expr, $begin:expr, $tenant:expr, $name:expr, $change:expr, $key:expr) => {{
        let mut tx = $pool.begin_with($begin).await?;
        let change: Option<&ChangeServer> = $change;
        if let Some(change) = change {
            sqlx::query(CHANGE)
                .bind($tenant)
                .bind($name)
                .bind(change.profile.as_deref())
                .bind(change.mode.map(word))
                .bind(change.node.as_deref())
                .bind(change.memory_bytes.map(|bytes| bytes as i64))
                .bind(change.address.as_deref())
                .bind(clock::now_ms() as i64)
                .execute(&mut *tx)
                .await?;
        }
        let row = sqlx::query(GET).bind($tenant).bind($name).fetch_optional(&mut *tx).await?;
        let server: Option<Server> = row.map(|row| -> Result<_> { server!(row) }).transpose()?;
        if let (Some(key), Some(server)) = ($key, &server) {
            let (data, now) = (serde_json::to_string(server)?, clock::now_ms() as i64);
            sqlx::query(KEEP)
                // About as long as the id of an event.
                .bind(key)
                .bind("server.changed")
                .bind(&server.name)
                .bind(&server.tenant)
                .bind(&data)
                .bind(now)
                .bind("operator")
                .bind(key)
                // As long as the digest of a request.
                .bind("0".repeat(64))
                .bind(&data)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(server)
    }};
}

fn word(value: impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| Some(value.as_str()?.to_owned())).unwrap_or_default()
}

fn parse<T: DeserializeOwned>(word: String) -> Result<T> {
    Ok(serde_json::from_value(Value::String(word))?)
}

impl App {
    /// The caller of a good token.
    fn caller(&self, headers: &HeaderMap) -> Result<Arc<Caller>, StatusCode> {
        let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer ")).ok_or(StatusCode::UNAUTHORIZED)?;
        let (key, now) = (TokenCache::key(token), clock::now_ms());
        if let Some(caller) = self.tokens.get(&key, now) {
            return Ok(caller);
        }
        let (claims, end) =
            self.keys.keys().public.verify("bench", token).map_err(|_| StatusCode::UNAUTHORIZED)?;
        let caller = Arc::new(Caller::of(claims).ok_or(StatusCode::UNAUTHORIZED)?);
        self.tokens.put(key, caller.clone(), end, now);
        Ok(caller)
    }
}

async fn look(State(app): State<Arc<App>>, Path(name): Path<String>, headers: HeaderMap) -> Answer {
    app.caller(&headers)?;
    let (tenant, name) = name.split_once('/').ok_or(StatusCode::NOT_FOUND)?;
    answer(match &app.read {
        Pool::Sqlite(pool) => on_sqlite(pool, "BEGIN", tenant, name, None).await,
        Pool::Postgres(pool) => on_postgres(pool, "BEGIN", tenant, name, None, None).await,
    })
}

async fn change(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Json(change): Json<ChangeServer>,
) -> Answer {
    app.caller(&headers)?;
    let (tenant, name) = name.split_once('/').ok_or(StatusCode::NOT_FOUND)?;
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).filter(|_| app.three_rows);
    answer(match &app.write {
        Pool::Sqlite(pool) => on_sqlite(pool, "BEGIN IMMEDIATE", tenant, name, Some(&change)).await,
        Pool::Postgres(pool) => on_postgres(pool, "BEGIN", tenant, name, Some(&change), key).await,
    })
}

type Answer = Result<Json<Server>, StatusCode>;

fn answer(server: Result<Option<Server>>) -> Answer {
    match server {
        Ok(server) => server.map(Json).ok_or(StatusCode::NOT_FOUND),
        Err(error) => {
            eprintln!("{error:#}");
            Err(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

async fn on_sqlite(
    pool: &SqlitePool,
    begin: &'static str,
    tenant: &str,
    name: &str,
    change: Option<&ChangeServer>,
) -> Result<Option<Server>> {
    transaction!(pool, begin, tenant, name, change, None::<&str>)
}

async fn on_postgres(
    pool: &PgPool,
    begin: &'static str,
    tenant: &str,
    name: &str,
    change: Option<&ChangeServer>,
    key: Option<&str>,
) -> Result<Option<Server>> {
    transaction!(pool, begin, tenant, name, change, key)
}
