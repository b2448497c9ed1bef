//! The API at `/v1`: one module a kind of thing.

mod ask;
mod bus;
mod commands;
mod docs;
mod erasures;
mod guard;
mod keys;
mod locate;
mod nodes;
mod profiles;
mod refusal;
mod servers;
mod tenants;
mod usage;
mod write;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::Method;
use axum::middleware;
use dormouse_api::{Code, Problem};
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;
use utoipa_axum::router::OpenApiRouter;

use crate::app::Shared;
use crate::metrics;
use docs::Bearer;
use refusal::Refusal;

pub use write::KEPT as ANSWERS_KEPT;

#[derive(OpenApi)]
#[openapi(
    info(title = "dormouse control plane", description = "One region's registry, index, events and routing."),
    components(schemas(Problem)),
    modifiers(&Bearer),
)]
struct Api;

/// Every endpoint that asks for a token.
fn guarded() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .merge(tenants::routes())
        .merge(servers::routes())
        .merge(profiles::routes())
        .merge(commands::routes())
        .merge(nodes::routes())
        .merge(usage::routes())
        .merge(bus::routes())
        .merge(erasures::routes())
        .merge(locate::routes())
        .merge(keys::routes())
}

fn described() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(Api::openapi()).merge(guarded()).merge(keys::open_routes())
}

/// The OpenAPI document, as it is committed.
pub fn document() -> Document {
    described().into_openapi()
}

/// The API of a running control plane.
pub fn router(app: Shared) -> Router {
    let (guarded, _) = guarded().split_for_parts();
    let (open, _) = keys::open_routes().split_for_parts();
    guarded
        .route_layer(middleware::from_fn_with_state(app.clone(), guard::guard))
        .merge(open)
        .merge(docs::routes(&document()))
        .fallback(async || Refusal::Problem(Problem::new(Code::NotFound, "there is nothing at this address")))
        .method_not_allowed_fallback(async |method: Method| {
            Refusal::Problem(Problem::new(
                Code::MethodNotAllowed,
                format!("{method} is not for this address"),
            ))
        })
        .layer(DefaultBodyLimit::max(ask::BODY_LIMIT))
        .layer(middleware::from_fn_with_state(app.clone(), metrics::count))
        .with_state(app)
}
