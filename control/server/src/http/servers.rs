//! `/v1/servers`

use axum::extract::State;
use axum::response::Response;
use dormouse_api::path;
use dormouse_api::registry::Page;
use dormouse_api::registry::server::{ChangeServer, NewServer, Server, ServerFilter};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ask::{self, Ask, Name, Nothing, Params};
use super::guard::Asker;
use super::locate;
use super::refusal::{ReadProblems, Refusal, WriteProblems};
use super::write::Answer;
use crate::app::Shared;
use crate::names::ServerName;
use crate::registry::servers;

pub fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(get, change, delete))
}

/// The servers, in the order of their names.
#[utoipa::path(get, path = "/v1/servers", tag = "servers", params(ServerFilter),
    responses((status = 200, body = Page<Server>), ReadProblems))]
async fn list(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Params(filter): Params<ServerFilter>,
) -> Result<Answer, Refusal> {
    let tenant = caller.lists(filter.tenant.as_deref())?;
    let mut tx = app.db.read(&caller.scope()).await?;
    let page = servers::list(&mut tx, &app.region.name, tenant.as_deref(), &filter).await?;
    tx.commit().await?;
    Ok(Answer::ok(&page)?)
}

/// One server.
#[utoipa::path(get, path = "/v1/servers/{name}", tag = "servers",
    params(("name" = String, Path, description = "`TENANT/NAME`, percent-encoded")),
    responses((status = 200, body = Server), ReadProblems))]
async fn get(State(app): State<Shared>, Asker(caller): Asker, Name(name): Name) -> Result<Answer, Refusal> {
    let name = ask::server(&name)?;
    caller.sees(&name)?;
    let mut tx = app.db.read(&caller.scope()).await?;
    let server = servers::get(&mut tx, &app.region.name, &name).await?.server;
    tx.commit().await?;
    Ok(Answer::ok(&server)?.of_version(server.version))
}

/// Adds a server, in observe mode unless said otherwise.
///
/// With `near` and without `node` the node is chosen: here, or `421` names the nearest region that has room.
#[utoipa::path(post, path = "/v1/servers", tag = "servers", request_body = NewServer,
    responses((status = 201, body = Server), WriteProblems))]
async fn create(
    State(app): State<Shared>,
    Asker(caller): Asker,
    mut ask: Ask<NewServer>,
) -> Result<Response, Refusal> {
    caller.sees(&ServerName::parse("name", &ask.body.name)?)?;
    let mut write = app.begin(&caller, &ask.head).await?;
    locate::place(&app, &caller, &mut write.tx, &mut ask.body).await?;
    let known = servers::create(&mut write.tx, &app.region.name, &ask.body).await?;
    let location = format!("/v1/servers/{}", path::encode(&known.server.name));
    let answer = Answer::created(&known.server, location)?.of_version(known.server.version);
    let answer = app.finish(write, answer).await?;
    app.tell_index(&known, false);
    Ok(answer)
}

/// Changes a server.
#[utoipa::path(patch, path = "/v1/servers/{name}", tag = "servers",
    params(("name" = String, Path, description = "`TENANT/NAME`, percent-encoded")),
    request_body = ChangeServer, responses((status = 200, body = Server), WriteProblems))]
async fn change(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Name(name): Name,
    ask: Ask<ChangeServer>,
) -> Result<Response, Refusal> {
    let name = ask::server(&name)?;
    caller.sees(&name)?;
    let mut write = app.begin(&caller, &ask.head).await?;
    let region = &app.region.name;
    let known = servers::change(&mut write.tx, region, &name, &ask.body, ask.head.expected).await?;
    let answer = Answer::ok(&known.server)?.of_version(known.server.version);
    let answer = app.finish(write, answer).await?;
    app.tell_index(&known, false);
    Ok(answer)
}

/// Removes a server from the registry; what runs on its node runs on.
#[utoipa::path(delete, path = "/v1/servers/{name}", tag = "servers",
    params(("name" = String, Path, description = "`TENANT/NAME`, percent-encoded")),
    responses((status = 204), WriteProblems))]
async fn delete(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Name(name): Name,
    ask: Ask<Nothing>,
) -> Result<Response, Refusal> {
    let name = ask::server(&name)?;
    caller.sees(&name)?;
    let mut write = app.begin(&caller, &ask.head).await?;
    let known = servers::delete(&mut write.tx, &app.region.name, &name, ask.head.expected).await?;
    let answer = app.finish(write, Answer::nothing()).await?;
    app.tell_index(&known, true);
    Ok(answer)
}
