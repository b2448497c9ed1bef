//! Which address asks for what.

use std::sync::Arc;

use axum::Router;
use axum::body::Body as HttpBytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{Method, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use dormouse_api::adopt::{AdoptRequest, AdoptResult};
use dormouse_api::command::{KeepRequest, ModeRequest, SleepRequest, WakeRequest, WakeResult};
use dormouse_api::preflight::Preflight;
use dormouse_api::profile::{Explain, ProfileSummary, SetRequest, Target};
use dormouse_api::savings::Savings;
use dormouse_api::status::{ServerStatus, Status};
use dormouse_api::why::Why;
use dormouse_api::{Code, Problem};

use super::Operator;
use super::answer::{Refusal, Reply, reply};
use super::events::Lines;
use super::request::{BODY_LIMIT, Body, Filtered, Names, Selected, Summed};

pub fn router<O: Operator>(operator: Arc<O>) -> Router {
    Router::new()
        .route("/v1/status", get(status::<O>))
        .route("/v1/servers/{name}/why", get(why::<O>))
        .route("/v1/servers/{name}/wake", post(wake::<O>))
        .route("/v1/servers/{name}/sleep", post(sleep::<O>))
        .route("/v1/servers/{name}/keep", post(keep::<O>))
        .route("/v1/servers/{name}/release", post(release::<O>))
        .route("/v1/servers/{name}/mode", put(set_mode::<O>))
        .route("/v1/servers/{name}/limits", get(explain_server::<O>).patch(set_server::<O>))
        .route("/v1/servers/{name}/limits/{key}", delete(unset_server::<O>))
        .route("/v1/profiles", get(profiles::<O>))
        .route("/v1/profiles/{name}", get(explain_profile::<O>).patch(set_profile::<O>))
        .route("/v1/profiles/{name}/{key}", delete(unset_profile::<O>))
        .route("/v1/events", get(events::<O>))
        .route("/v1/preflight", get(preflight::<O>))
        .route("/v1/savings", get(savings::<O>))
        .route("/v1/adopt", post(adopt::<O>))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(operator)
}

type Node<O> = State<Arc<O>>;

async fn status<O: Operator>(State(node): Node<O>, Selected(selector): Selected) -> Reply<Status> {
    reply(node.status(selector).await)
}

async fn why<O: Operator>(State(node): Node<O>, Names(name): Names<String>) -> Reply<Why> {
    reply(node.why(name).await)
}

async fn wake<O: Operator>(
    State(node): Node<O>,
    Names(name): Names<String>,
    Body(request): Body<WakeRequest>,
) -> Reply<WakeResult> {
    reply(node.wake(name, request).await)
}

async fn sleep<O: Operator>(
    State(node): Node<O>,
    Names(name): Names<String>,
    Body(request): Body<SleepRequest>,
) -> Reply<ServerStatus> {
    reply(node.sleep(name, request).await)
}

async fn keep<O: Operator>(
    State(node): Node<O>,
    Names(name): Names<String>,
    Body(request): Body<KeepRequest>,
) -> Reply<ServerStatus> {
    reply(node.keep(name, request).await)
}

async fn release<O: Operator>(State(node): Node<O>, Names(name): Names<String>) -> Reply<ServerStatus> {
    reply(node.release(name).await)
}

async fn set_mode<O: Operator>(
    State(node): Node<O>,
    Names(name): Names<String>,
    Body(request): Body<ModeRequest>,
) -> Reply<ServerStatus> {
    reply(node.set_mode(name, request.mode).await)
}

async fn profiles<O: Operator>(State(node): Node<O>) -> Reply<Vec<ProfileSummary>> {
    reply(node.profiles().await)
}

async fn explain_server<O: Operator>(State(node): Node<O>, Names(name): Names<String>) -> Reply<Explain> {
    reply(node.explain(Target::Server(name)).await)
}

async fn explain_profile<O: Operator>(State(node): Node<O>, Names(name): Names<String>) -> Reply<Explain> {
    reply(node.explain(Target::Profile(name)).await)
}

async fn set_server<O: Operator>(
    State(node): Node<O>,
    Names(name): Names<String>,
    Body(request): Body<SetRequest>,
) -> Reply<Explain> {
    reply(node.set(Target::Server(name), request).await)
}

async fn set_profile<O: Operator>(
    State(node): Node<O>,
    Names(name): Names<String>,
    Body(request): Body<SetRequest>,
) -> Reply<Explain> {
    reply(node.set(Target::Profile(name), request).await)
}

async fn unset_server<O: Operator>(
    State(node): Node<O>,
    Names((name, key)): Names<(String, String)>,
) -> Reply<Explain> {
    reply(node.unset(Target::Server(name), key).await)
}

async fn unset_profile<O: Operator>(
    State(node): Node<O>,
    Names((name, key)): Names<(String, String)>,
) -> Reply<Explain> {
    reply(node.unset(Target::Profile(name), key).await)
}

async fn events<O: Operator>(State(node): Node<O>, Filtered(filter): Filtered) -> Result<Response, Refusal> {
    let events = node.events(filter.follow).await?;
    let lines = HttpBytes::new(Lines { events, filter });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], lines).into_response())
}

async fn preflight<O: Operator>(State(node): Node<O>) -> Reply<Preflight> {
    reply(node.preflight().await)
}

async fn savings<O: Operator>(State(node): Node<O>, Summed(request): Summed) -> Reply<Savings> {
    reply(node.savings(request).await)
}

async fn adopt<O: Operator>(State(node): Node<O>, Body(request): Body<AdoptRequest>) -> Reply<AdoptResult> {
    reply(node.adopt(request).await)
}

async fn no_route(uri: Uri) -> Refusal {
    Problem::new(Code::NotFound, format!("there is nothing at {}", uri.path()))
        .with_remedy("is `dormouse` newer than `dormoused`?")
        .into()
}

async fn no_method(method: Method, uri: Uri) -> Refusal {
    Problem::new(Code::MethodNotAllowed, format!("{} is not asked with {method}", uri.path())).into()
}
