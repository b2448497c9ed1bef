//! `/v1/tenants`

use axum::extract::State;
use axum::response::Response;
use dormouse_api::path;
use dormouse_api::registry::Page;
use dormouse_api::registry::tenant::{ChangeTenant, NewTenant, Tenant};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ask::{Ask, Name, Nothing, Params};
use super::guard::Asker;
use super::refusal::{ReadProblems, Refusal, WriteProblems};
use super::write::Answer;
use crate::app::Shared;
use crate::names;
use crate::registry::{page_size, tenants};

pub fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(get, change, delete))
}

/// A page of a list that is in the order of names.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Paged {
    /// `next` of the page before.
    pub cursor: Option<String>,
    /// 1 to 500 [default: 100]
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<u32>,
}

/// The tenants; a tenant sees itself.
#[utoipa::path(get, path = "/v1/tenants", tag = "tenants", params(Paged),
    responses((status = 200, body = Page<Tenant>), ReadProblems))]
async fn list(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Params(paged): Params<Paged>,
) -> Result<Answer, Refusal> {
    let own = caller.lists(None)?;
    let size = page_size(paged.limit)?;
    let cursor = paged.cursor.as_deref().map(|cursor| names::tenant("cursor", cursor)).transpose()?;
    let mut tx = app.db.read(&caller.scope()).await?;
    let page = tenants::list(&mut tx, own.as_deref(), cursor.as_deref(), size).await?;
    tx.commit().await?;
    Ok(Answer::ok(&page)?)
}

/// One tenant.
#[utoipa::path(get, path = "/v1/tenants/{id}", tag = "tenants", params(("id" = String, Path)),
    responses((status = 200, body = Tenant), ReadProblems))]
async fn get(State(app): State<Shared>, Asker(caller): Asker, Name(id): Name) -> Result<Answer, Refusal> {
    let id = names::tenant("id", &id)?;
    caller.sees_tenant(&id)?;
    let mut tx = app.db.read(&caller.scope()).await?;
    let tenant = tenants::get(&mut tx, &id).await?;
    tx.commit().await?;
    Ok(Answer::ok(&tenant)?.of_version(tenant.version))
}

/// Adds a tenant. Operators only.
#[utoipa::path(post, path = "/v1/tenants", tag = "tenants", request_body = NewTenant,
    responses((status = 201, body = Tenant), WriteProblems))]
async fn create(
    State(app): State<Shared>,
    Asker(caller): Asker,
    ask: Ask<NewTenant>,
) -> Result<Response, Refusal> {
    caller.operates()?;
    let mut write = app.begin(&caller, &ask.head).await?;
    let tenant = tenants::create(&mut write.tx, &ask.body).await?;
    let location = format!("/v1/tenants/{}", path::encode(&tenant.id));
    let answer = Answer::created(&tenant, location)?.of_version(tenant.version);
    app.finish(write, answer).await
}

/// Changes a tenant. Operators only.
#[utoipa::path(patch, path = "/v1/tenants/{id}", tag = "tenants", params(("id" = String, Path)),
    request_body = ChangeTenant, responses((status = 200, body = Tenant), WriteProblems))]
async fn change(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Name(id): Name,
    ask: Ask<ChangeTenant>,
) -> Result<Response, Refusal> {
    caller.operates()?;
    let id = names::tenant("id", &id)?;
    let mut write = app.begin(&caller, &ask.head).await?;
    let tenant = tenants::change(&mut write.tx, &id, &ask.body, ask.head.expected).await?;
    let answer = Answer::ok(&tenant)?.of_version(tenant.version);
    app.finish(write, answer).await
}

/// Removes a tenant that has no servers. Operators only.
#[utoipa::path(delete, path = "/v1/tenants/{id}", tag = "tenants", params(("id" = String, Path)),
    responses((status = 204), WriteProblems))]
async fn delete(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Name(id): Name,
    ask: Ask<Nothing>,
) -> Result<Response, Refusal> {
    caller.operates()?;
    let id = names::tenant("id", &id)?;
    let mut write = app.begin(&caller, &ask.head).await?;
    tenants::delete(&mut write.tx, &id, ask.head.expected).await?;
    app.finish(write, Answer::nothing()).await
}
