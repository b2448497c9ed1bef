//! `/v1/servers`

use axum::extract::State;
use dormouse_api::path;
use dormouse_api::registry::Page;
use dormouse_api::registry::server::{ChangeServer, NewServer, Server, ServerFilter};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ask::{self, Ask, Name, Nothing, Params};
use super::guard::Asker;
use super::locate;
use super::refusal::{ReadProblems, Refusal, WriteProblems};
use super::write::{Answer, Done};
use crate::app::Shared;
use crate::names::ServerName;
use crate::registry::servers::{self, Known};
use crate::store::Tx;

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
    Ask { mut body, head }: Ask<NewServer>,
) -> Result<Done<Known>, Refusal> {
    caller.sees(&ServerName::parse("name", &body.name)?)?;
    let work = async |tx: &mut Tx| {
        locate::place(&app, &caller, tx, &mut body).await?;
        Ok::<_, Refusal>(servers::create(tx, &app.region.name, &body).await?)
    };
    let answer = |Known { server, .. }: &Known| {
        let location = format!("/v1/servers/{}", path::encode(&server.name));
        Ok(Answer::created(server, location)?.of_version(server.version))
    };
    let done = app.write(&caller, &head, work, answer).await?;
    app.tell_index(&done.what, false);
    Ok(done)
}

/// Changes a server.
#[utoipa::path(patch, path = "/v1/servers/{name}", tag = "servers",
    params(("name" = String, Path, description = "`TENANT/NAME`, percent-encoded")),
    request_body = ChangeServer, responses((status = 200, body = Server), WriteProblems))]
async fn change(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Name(name): Name,
    Ask { body, head }: Ask<ChangeServer>,
) -> Result<Done<Known>, Refusal> {
    let name = ask::server(&name)?;
    caller.sees(&name)?;
    let work = async |tx: &mut Tx| servers::change(tx, &app.region.name, &name, &body, head.expected).await;
    let answer = |Known { server, .. }: &Known| Ok(Answer::ok(server)?.of_version(server.version));
    let done = app.write(&caller, &head, work, answer).await?;
    app.tell_index(&done.what, false);
    Ok(done)
}

/// Removes a server from the registry; what runs on its node runs on.
#[utoipa::path(delete, path = "/v1/servers/{name}", tag = "servers",
    params(("name" = String, Path, description = "`TENANT/NAME`, percent-encoded")),
    responses((status = 204), WriteProblems))]
async fn delete(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Name(name): Name,
    Ask { head, .. }: Ask<Nothing>,
) -> Result<Done<Known>, Refusal> {
    let name = ask::server(&name)?;
    caller.sees(&name)?;
    let work = async |tx: &mut Tx| servers::delete(tx, &app.region.name, &name, head.expected).await;
    let done = app.write(&caller, &head, work, |_| Ok(Answer::nothing())).await?;
    app.tell_index(&done.what, true);
    Ok(done)
}
