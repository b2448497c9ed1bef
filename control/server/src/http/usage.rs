//! `/v1/usage`

use axum::extract::State;
use dormouse_api::registry::Page;
use dormouse_api::registry::usage::{Usage, UsageFilter};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ask::Params;
use super::guard::Asker;
use super::refusal::{ReadProblems, Refusal};
use super::write::Answer;
use crate::app::Shared;
use crate::registry::usage;

pub fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list))
}

/// What servers used, from their nodes' reports, in whole days.
#[utoipa::path(get, path = "/v1/usage", tag = "usage", params(UsageFilter),
    responses((status = 200, body = Page<Usage>), ReadProblems))]
async fn list(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Params(filter): Params<UsageFilter>,
) -> Result<Answer, Refusal> {
    let tenant = caller.lists(filter.tenant.as_deref())?;
    let mut tx = app.db.read(&caller.scope()).await?;
    let page = usage::list(&mut tx, tenant.as_deref(), &filter).await?;
    tx.commit().await?;
    Ok(Answer::ok(&page)?)
}
