//! `/v1/nodes`: what nodes report, what they fetch, what they are told.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use dormouse_api::registry::Page;
use dormouse_api::registry::erasure::{Erasure, ErasureAnswer, NodeErased, ServiceState};
use dormouse_api::registry::node::{
    Command, CommandAnswer, ForNode, NewNode, Node, NodeReport, ReportAnswer,
};
use dormouse_api::registry::threshold::NodeProfiles;
use dormouse_api::{Problem, path};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ask::{Ask, Name, Names, Nothing, Params};
use super::guard::Asker;
use super::refusal::{ReadProblems, Refusal, WriteProblems};
use super::tenants::Paged;
use super::write::{Answer, Done};
use crate::app::Shared;
use crate::deliver;
use crate::erasure;
use crate::names;
use crate::registry::reports::{self, Outcome};
use crate::registry::servers::Known;
use crate::registry::{commands, nodes, page_size, profiles};
use crate::store::Tx;

/// 5,000 servers at some 300 bytes, and room.
const REPORT_LIMIT: usize = 4 << 20;
/// A line without a command: both ends see that the other is there.
const BEAT: Duration = Duration::from_secs(10);

pub fn routes() -> OpenApiRouter<Shared> {
    let report = OpenApiRouter::new().routes(routes!(report)).layer(DefaultBodyLimit::max(REPORT_LIMIT));
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, delete))
        .routes(routes!(node_profiles))
        .routes(routes!(stream))
        .routes(routes!(answer))
        .routes(routes!(erased))
        .merge(report)
}

/// The nodes. Operators only.
#[utoipa::path(get, path = "/v1/nodes", tag = "nodes", params(Paged),
    responses((status = 200, body = Page<Node>), ReadProblems))]
async fn list(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Params(paged): Params<Paged>,
) -> Result<Answer, Refusal> {
    caller.operates()?;
    let size = page_size(paged.limit)?;
    let cursor = paged.cursor.as_deref().map(|cursor| names::plain("cursor", cursor)).transpose()?;
    let mut tx = app.db.read(&caller.scope()).await?;
    let page = nodes::list(&mut tx, &app.region.name, cursor.as_deref(), size).await?;
    tx.commit().await?;
    Ok(Answer::ok(&page)?)
}

/// Adds a node. Operators only.
#[utoipa::path(post, path = "/v1/nodes", tag = "nodes", request_body = NewNode,
    responses((status = 201, body = Node), WriteProblems))]
async fn create(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Ask { body, head }: Ask<NewNode>,
) -> Result<Done<Node>, Refusal> {
    caller.operates()?;
    let work = async |tx: &mut Tx| nodes::create(tx, &app.region.name, &body).await;
    let answer = |node: &Node| {
        let location = format!("/v1/nodes/{}", path::encode(&node.name));
        Ok(Answer::created(node, location)?.of_version(node.version))
    };
    app.write(&caller, &head, work, answer).await
}

/// One node. Operators, and the node itself.
#[utoipa::path(get, path = "/v1/nodes/{node}", tag = "nodes", params(("node" = String, Path)),
    responses((status = 200, body = Node), ReadProblems))]
async fn get(State(app): State<Shared>, Asker(caller): Asker, Name(name): Name) -> Result<Answer, Refusal> {
    let name = names::plain("node", &name)?;
    caller.operates().or_else(|_| caller.is_node(&name))?;
    let mut tx = app.db.read(&caller.scope()).await?;
    let node = nodes::get(&mut tx, &app.region.name, &name).await?;
    tx.commit().await?;
    Ok(Answer::ok(&node)?.of_version(node.version))
}

/// Removes a node that has no servers, and its keys. Operators only.
#[utoipa::path(delete, path = "/v1/nodes/{node}", tag = "nodes", params(("node" = String, Path)),
    responses((status = 204), WriteProblems))]
async fn delete(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Name(name): Name,
    Ask { head, .. }: Ask<Nothing>,
) -> Result<Done<()>, Refusal> {
    caller.operates()?;
    let name = names::plain("node", &name)?;
    let work = async |tx: &mut Tx| nodes::delete(tx, &name, head.expected).await;
    app.write(&caller, &head, work, |()| Ok(Answer::nothing())).await
}

/// What a node says of itself and its servers. The node only.
#[utoipa::path(post, path = "/v1/nodes/{node}/reports", tag = "nodes", params(("node" = String, Path)),
    request_body = NodeReport, responses((status = 200, body = ReportAnswer), WriteProblems))]
async fn report(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Name(name): Name,
    Ask { body, head }: Ask<NodeReport>,
) -> Result<Done<(Vec<Known>, ReportAnswer)>, Refusal> {
    let name = names::plain("node", &name)?;
    caller.is_node(&name)?;
    let work = async |tx: &mut Tx| {
        let Outcome { changed, unknown } = reports::take(tx, &app.region.name, &name, &body).await?;
        let profiles_revision =
            if body.follows { profiles::of_node(tx, &name).await?.revision } else { String::new() };
        Ok::<_, Problem>((changed, ReportAnswer { unknown, profiles_revision }))
    };
    let done = app.write(&caller, &head, work, |(_, answer)| Answer::ok(answer)).await?;
    for known in &done.what.0 {
        app.tell_index(known, false);
    }
    Ok(done)
}

/// The registry's thresholds for a node and its servers. The node only.
#[utoipa::path(get, path = "/v1/nodes/{node}/profiles", tag = "nodes", params(("node" = String, Path)),
    responses((status = 200, body = NodeProfiles), ReadProblems))]
async fn node_profiles(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Name(name): Name,
) -> Result<Json<NodeProfiles>, Refusal> {
    let name = names::plain("node", &name)?;
    caller.is_node(&name)?;
    let mut tx = app.db.read(&caller.scope()).await?;
    let profiles = profiles::of_node(&mut tx, &name).await?;
    tx.commit().await?;
    Ok(Json(profiles))
}

/// The node's commands, and the erasures that it has not answered, as they come: a line of JSON each, an empty line
/// every ten seconds. The node only.
#[utoipa::path(get, path = "/v1/nodes/{node}/commands", tag = "nodes", params(("node" = String, Path)),
    responses((status = 200, body = ForNode, content_type = "application/x-ndjson"), ReadProblems))]
async fn stream(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Name(name): Name,
) -> Result<Response, Refusal> {
    let name = names::plain("node", &name)?;
    caller.is_node(&name)?;
    let mut tx = app.db.read(&caller.scope()).await?;
    nodes::get(&mut tx, &app.region.name, &name).await?;
    tx.commit().await?;
    let (lines, body) = mpsc::channel::<Result<Bytes, Infallible>>(16);
    tokio::spawn(deliver::to_node(app.clone(), name, BEAT, lines));
    let ndjson = HeaderValue::from_static("application/x-ndjson");
    Ok(([(header::CONTENT_TYPE, ndjson)], Body::from_stream(ReceiverStream::new(body))).into_response())
}

/// The node erased what it knew of a person. The node only.
#[utoipa::path(post, path = "/v1/nodes/{node}/erasures/{id}/answer", tag = "nodes",
    params(("node" = String, Path), ("id" = String, Path)), request_body = NodeErased,
    responses((status = 204), WriteProblems))]
async fn erased(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Names(node, id): Names,
    Ask { body, head }: Ask<NodeErased>,
) -> Result<Done<Erasure>, Refusal> {
    let (node, id) = (names::plain("node", &node)?, names::plain("id", &id)?);
    caller.is_node(&node)?;
    let said = ErasureAnswer {
        service: erasure::nodes::service(&node),
        state: ServiceState::Erased,
        count: body.count,
        reason: None,
    };
    let work = async |tx: &mut Tx| erasure::answer(tx, &id, &said).await;
    app.write(&caller, &head, work, |_| Ok(Answer::nothing())).await
}

/// What became of a command. The node only.
#[utoipa::path(post, path = "/v1/nodes/{node}/commands/{id}/answer", tag = "nodes",
    params(("node" = String, Path), ("id" = String, Path)), request_body = CommandAnswer,
    responses((status = 200, body = Command), WriteProblems))]
async fn answer(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Names(node, id): Names,
    Ask { body, head }: Ask<CommandAnswer>,
) -> Result<Done<Command>, Refusal> {
    let (node, id) = (names::plain("node", &node)?, names::plain("id", &id)?);
    caller.is_node(&node)?;
    let work = async |tx: &mut Tx| commands::answer(tx, &node, &id, &body).await;
    let done = app.write(&caller, &head, work, Answer::ok).await;
    if let Ok(done) = &done {
        app.metrics.command_answered(done.what.state);
    }
    app.ordered.notify_one();
    done
}
