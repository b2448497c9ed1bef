//! `/v1/bus` and `/v1/dead-letters`: events for those who have no Redis, and what services gave up on.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use dormouse_api::registry::Page;
use dormouse_api::registry::bus::{BusEvent, BusFilter, DeadLetter};
use dormouse_api::{Code, Problem};
use redis::aio::MultiplexedConnection;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ask::{Ask, Name, Nothing, Params};
use super::guard::Asker;
use super::refusal::{ReadProblems, Refusal, WriteProblems};
use super::tenants::Paged;
use super::write::Answer;
use crate::app::{App, Shared};
use crate::bus::{consume, read, stream};
use crate::registry::{page, page_size};
use crate::store::{Scope, StoreError};

/// A comment line: both ends see that the other is there (WHATWG HTML, 9.2.6).
const BEAT: Duration = Duration::from_secs(15);
const BATCH: u32 = 200;

pub fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(events)).routes(routes!(dead)).routes(routes!(redrive))
}

/// The region's events after a position: a page, or with `Accept: text/event-stream` a stream that goes on.
///
/// Services and operators only. A stream takes up where `Last-Event-ID` says.
#[utoipa::path(get, path = "/v1/bus", tag = "bus", params(BusFilter),
    responses((status = 200, body = Page<BusEvent>), ReadProblems))]
async fn events(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Params(filter): Params<BusFilter>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    caller.serves()?;
    let size = page_size(filter.limit)?;
    let kind = filter.kind.unwrap_or_default();
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let streams = text(header::ACCEPT.as_str()).is_some_and(|accept| accept.contains("text/event-stream"));
    if !streams {
        let mut tx = app.db.read(&Scope::Region).await?;
        let after = filter.after.unwrap_or(0);
        let events = read::after::<Value>(&mut tx, &app.region.name, after, &kind, size + 1).await?;
        tx.commit().await?;
        let page = page(events, size, |event| event.position.to_string());
        return Ok(Answer::ok(&page)?.into_response());
    }
    let seen = text("last-event-id").and_then(|id| id.parse().ok());
    let (frames, body) = mpsc::channel::<Result<Bytes, Infallible>>(4);
    tokio::spawn(follow(app, seen.or(filter.after).unwrap_or(0), kind, frames));
    let media_type = HeaderValue::from_static("text/event-stream");
    Ok(([(header::CONTENT_TYPE, media_type)], Body::from_stream(ReceiverStream::new(body))).into_response())
}

/// Until the reader goes or the program stops.
async fn follow(app: Shared, mut at: u64, kind: String, frames: mpsc::Sender<Result<Bytes, Infallible>>) {
    let mut sequenced = app.sequenced.subscribe();
    let mut stopping = app.stopping.subscribe();
    loop {
        sequenced.borrow_and_update();
        match send(&app, &mut at, &kind, &frames).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => tracing::warn!(%error, "a stream of events waits for the database"),
        }
        tokio::select! {
            _ = stopping.changed() => return,
            () = frames.closed() => return,
            _ = tokio::time::timeout(BEAT, sequenced.changed()) => {}
        }
        if frames.send(Ok(Bytes::from_static(b":\n\n"))).await.is_err() {
            return;
        }
    }
}

/// Everything there is; `false`: nobody reads.
async fn send(
    app: &App,
    at: &mut u64,
    kind: &str,
    frames: &mpsc::Sender<Result<Bytes, Infallible>>,
) -> Result<bool, StoreError> {
    loop {
        let mut tx = app.db.read(&Scope::Region).await?;
        let events = read::after::<Box<RawValue>>(&mut tx, &app.region.name, *at, kind, BATCH).await?;
        tx.commit().await?;
        if events.is_empty() {
            return Ok(true);
        }
        for event in events {
            let Ok(data) = serde_json::to_string(&event) else { continue };
            let frame = format!("id: {}\nevent: {}\ndata: {data}\n\n", event.position, event.kind);
            if frames.send(Ok(frame.into())).await.is_err() {
                return Ok(false);
            }
            *at = event.position;
        }
    }
}

async fn redis(app: &App) -> Result<MultiplexedConnection, Problem> {
    let Some(client) = &app.redis else {
        return Err(Problem::refused("this region has no Redis, so nobody's events can be dead letters"));
    };
    stream::connect(client).await.map_err(|error| away(&error))
}

fn away(error: &redis::RedisError) -> Problem {
    tracing::warn!(%error, "Redis doesn't answer");
    Problem::new(Code::Unavailable, "Redis doesn't answer now")
}

/// Events that a service failed on again and again. Operators only.
#[utoipa::path(get, path = "/v1/dead-letters", tag = "bus", params(Paged),
    responses((status = 200, body = Page<DeadLetter>), (status = 409, body = Problem, content_type = "application/problem+json"), ReadProblems))]
async fn dead(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Params(paged): Params<Paged>,
) -> Result<Answer, Refusal> {
    caller.operates()?;
    let size = page_size(paged.limit)?;
    let after = paged.cursor.as_deref().map_or(Ok(String::new()), |cursor| entry_id("cursor", cursor))?;
    let mut connection = redis(&app).await?;
    let letters = consume::dead(&mut connection, &app.region.name, &after, size + 1).await;
    let letters = letters.map_err(|error| away(&error))?;
    Ok(Answer::ok(&page(letters, size, |letter| letter.id.clone()))?)
}

/// Gives a dead letter to its service again. Operators only.
#[utoipa::path(post, path = "/v1/dead-letters/{id}/redrive", tag = "bus", params(("id" = String, Path)),
    responses((status = 204), WriteProblems))]
async fn redrive(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Name(id): Name,
    _: Ask<Nothing>,
) -> Result<Answer, Refusal> {
    caller.operates()?;
    let id = entry_id("id", &id)?;
    let mut connection = redis(&app).await?;
    let redriven = consume::redrive(&mut connection, &app.region.name, &id).await;
    if redriven.map_err(|error| away(&error))? {
        return Ok(Answer::nothing());
    }
    Err(Problem::new(Code::NotFound, format!("no dead letter has the id {id}")).into())
}

/// A stream's entry: `1700000000000-0`.
fn entry_id(field: &str, id: &str) -> Result<String, Problem> {
    let number =
        |text: &str| (1..=19).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    match id.split_once('-') {
        Some((time, count)) if number(time) && number(count) => Ok(id.to_owned()),
        _ => Err(Problem::bad_field(field, format!("{id:?} is no entry of a stream"))),
    }
}
