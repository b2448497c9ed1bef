//! `/v1/tenants`

use axum::extract::State;
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
use super::write::{Answer, Done};
use crate::app::Shared;
use crate::names;
use crate::registry::{page_size, tenants};
use crate::store::Tx;

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
    Ask { body, head }: Ask<NewTenant>,
) -> Result<Done<Tenant>, Refusal> {
    caller.operates()?;
    let work = async |tx: &mut Tx| tenants::create(tx, &body).await;
    let answer = |tenant: &Tenant| {
        let location = format!("/v1/tenants/{}", path::encode(&tenant.id));
        Ok(Answer::created(tenant, location)?.of_version(tenant.version))
    };
    app.write(&caller, &head, work, answer).await
}

/// Changes a tenant. Operators only.
#[utoipa::path(patch, path = "/v1/tenants/{id}", tag = "tenants", params(("id" = String, Path)),
    request_body = ChangeTenant, responses((status = 200, body = Tenant), WriteProblems))]
async fn change(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Name(id): Name,
    Ask { body, head }: Ask<ChangeTenant>,
) -> Result<Done<Tenant>, Refusal> {
    caller.operates()?;
    let id = names::tenant("id", &id)?;
    let work = async |tx: &mut Tx| tenants::change(tx, &id, &body, head.expected).await;
    let answer = |tenant: &Tenant| Ok(Answer::ok(tenant)?.of_version(tenant.version));
    app.write(&caller, &head, work, answer).await
}

/// Removes a tenant that has no servers. Operators only.
#[utoipa::path(delete, path = "/v1/tenants/{id}", tag = "tenants", params(("id" = String, Path)),
    responses((status = 204), WriteProblems))]
async fn delete(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Name(id): Name,
    Ask { head, .. }: Ask<Nothing>,
) -> Result<Done<()>, Refusal> {
    caller.operates()?;
    let id = names::tenant("id", &id)?;
    let work = async |tx: &mut Tx| tenants::delete(tx, &id, head.expected).await;
    app.write(&caller, &head, work, |()| Ok(Answer::nothing())).await
}
