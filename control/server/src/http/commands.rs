//! `wake`, `sleep`, `keep`, `release`: asked here, done by the server's node.

use axum::extract::State;
use dormouse_api::Problem;
use dormouse_api::command::{KeepRequest, SleepRequest};
use dormouse_api::registry::node::{Command, Order};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ask::{self, Ask, Head, Name, Nothing};
use super::guard::Asker;
use super::refusal::{ReadProblems, Refusal, WriteProblems};
use super::write::{Answer, Done};
use crate::app::{App, Shared};
use crate::auth::Caller;
use crate::names::{self, ServerName};
use crate::registry::commands;
use crate::store::Tx;

/// A year: longer is no while.
const KEEP_MOST_MS: u64 = 365 * 86_400_000;
const TEXT_MOST: usize = 200;

pub fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(wake))
        .routes(routes!(sleep))
        .routes(routes!(keep))
        .routes(routes!(release))
        .routes(routes!(get))
}

async fn order(
    app: &App,
    caller: &Caller,
    name: &str,
    order: &Order,
    head: &Head,
) -> Result<Done<Command>, Refusal> {
    let name = ask::server(name)?;
    caller.sees(&name)?;
    let work = async |tx: &mut Tx| commands::order(tx, &app.region.name, &name, order).await;
    let answer = |command: &Command| Answer::accepted(command, format!("/v1/commands/{}", command.id));
    let done = app.write(caller, head, work, answer).await;
    app.ordered.notify_one();
    done
}

/// Wakes a server.
#[utoipa::path(post, path = "/v1/servers/{name}/wake", tag = "commands", params(("name" = String, Path)),
    responses((status = 202, body = Command), WriteProblems))]
async fn wake(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Name(name): Name,
    ask: Ask<Nothing>,
) -> Result<Done<Command>, Refusal> {
    order(&app, &caller, &name, &Order::Wake, &ask.head).await
}

/// Puts a server to sleep, after the node's own checks.
///
/// Dropped by the node if the server has changed its stage since, or after a minute.
#[utoipa::path(post, path = "/v1/servers/{name}/sleep", tag = "commands", params(("name" = String, Path)),
    request_body = SleepRequest, responses((status = 202, body = Command), WriteProblems))]
async fn sleep(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Name(name): Name,
    ask: Ask<SleepRequest>,
) -> Result<Done<Command>, Refusal> {
    order(&app, &caller, &name, &Order::Sleep { deep: ask.body.deep }, &ask.head).await
}

/// Forbids sleep for a while.
#[utoipa::path(post, path = "/v1/servers/{name}/keep", tag = "commands", params(("name" = String, Path)),
    request_body = KeepRequest, responses((status = 202, body = Command), WriteProblems))]
async fn keep(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Name(name): Name,
    ask: Ask<KeepRequest>,
) -> Result<Done<Command>, Refusal> {
    let KeepRequest { for_ms, reason, owner } = &ask.body;
    if *for_ms == 0 || *for_ms > KEEP_MOST_MS {
        return Err(Problem::bad_field("for_ms", "a keep is more than nothing and at most a year").into());
    }
    let reason = names::title("reason", reason, TEXT_MOST)?;
    let owner = names::title("owner", owner, TEXT_MOST)?;
    order(&app, &caller, &name, &Order::Keep { for_ms: *for_ms, reason, owner }, &ask.head).await
}

/// Ends a keep.
#[utoipa::path(post, path = "/v1/servers/{name}/release", tag = "commands", params(("name" = String, Path)),
    responses((status = 202, body = Command), WriteProblems))]
async fn release(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Name(name): Name,
    ask: Ask<Nothing>,
) -> Result<Done<Command>, Refusal> {
    order(&app, &caller, &name, &Order::Release, &ask.head).await
}

/// How far a command came.
#[utoipa::path(get, path = "/v1/commands/{id}", tag = "commands", params(("id" = String, Path)),
    responses((status = 200, body = Command), ReadProblems))]
async fn get(State(app): State<Shared>, Asker(caller): Asker, Name(id): Name) -> Result<Answer, Refusal> {
    caller.manages()?;
    let id = names::plain("id", &id)?;
    let mut tx = app.db.read(&caller.scope()).await?;
    let command = commands::get(&mut tx, &id).await?.command;
    tx.commit().await?;
    // To another tenant it doesn't exist.
    caller.sees(&ServerName::parse("server", &command.server)?).map_err(|_| commands::no_such(&id))?;
    Ok(Answer::ok(&command)?)
}
