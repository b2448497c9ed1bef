//! `/v1/erasures`

use axum::extract::State;
use dormouse_api::registry::Page;
use dormouse_api::registry::erasure::{Erasure, ErasureAnswer, NewErasure, Replay, Replayed};
use dormouse_api::registry::login::Role;
use dormouse_api::{Code, Problem};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ask::{Ask, Name, Params};
use super::guard::Asker;
use super::refusal::{ReadProblems, Refusal, WriteProblems};
use super::tenants::Paged;
use super::write::{Answer, Done};
use crate::app::{App, Shared};
use crate::auth::Caller;
use crate::erasure;
use crate::names;
use crate::registry::page_size;
use crate::store::Tx;

pub fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get))
        .routes(routes!(answer))
        .routes(routes!(replay))
}

/// A tenant sees its own, operators and services see all.
fn sees(caller: &Caller, erasure: &Erasure) -> Result<(), Problem> {
    if caller.role == Role::Service {
        return Ok(());
    }
    caller.manages()?;
    match caller.scope().tenant() {
        Some(own) if erasure.tenant.as_deref() != Some(own) => Err(erasure::no_such(&erasure.id)),
        _ => Ok(()),
    }
}

/// The requests and how far each service is, newest first.
#[utoipa::path(get, path = "/v1/erasures", tag = "erasures", params(Paged),
    responses((status = 200, body = Page<Erasure>), ReadProblems))]
async fn list(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Params(paged): Params<Paged>,
) -> Result<Answer, Refusal> {
    let tenant = caller.lists(None)?;
    let size = page_size(paged.limit)?;
    let cursor = paged.cursor.as_deref().map(|cursor| names::plain("cursor", cursor)).transpose()?;
    let mut tx = app.db.read(&caller.scope()).await?;
    let page = erasure::list(&mut tx, tenant.as_deref(), cursor.as_deref(), size).await?;
    tx.commit().await?;
    Ok(Answer::ok(&page)?)
}

/// Asks every service to erase a person's data. The subject is an opaque id.
#[utoipa::path(post, path = "/v1/erasures", tag = "erasures", request_body = NewErasure,
    responses((status = 201, body = Erasure), WriteProblems))]
async fn create(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Ask { mut body, head }: Ask<NewErasure>,
) -> Result<Done<Erasure>, Refusal> {
    body.tenant = caller.lists(body.tenant.as_deref())?;
    let work = async |tx: &mut Tx| erasure::create(tx, &body, &app.erasure_services).await;
    let answer = |made: &Erasure| {
        let location = format!("/v1/erasures/{}", made.id);
        Ok(Answer::created(made, location)?.of_version(made.version))
    };
    let note = async |made: &Erasure| note(&app, made).await;
    let done = app.write_noting(&caller, &head, work, answer, note).await;
    app.erasures_asked.send_replace(());
    done
}

/// Before the commit: a request that was answered is never forgotten.
async fn note(app: &App, made: &Erasure) -> Result<(), Problem> {
    let (ledger, entry) = (app.erasure_ledger.clone(), erasure::Entry::from(made));
    let noted = tokio::task::spawn_blocking(move || ledger.note(&entry)).await;
    let failed = |error: &dyn std::fmt::Display| {
        tracing::error!(%error, "an erasure was not taken on");
        Problem::new(Code::Unavailable, "the request can't be kept now; ask again")
    };
    noted.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
}

/// One request.
#[utoipa::path(get, path = "/v1/erasures/{id}", tag = "erasures", params(("id" = String, Path)),
    responses((status = 200, body = Erasure), ReadProblems))]
async fn get(State(app): State<Shared>, Asker(caller): Asker, Name(id): Name) -> Result<Answer, Refusal> {
    let id = names::plain("id", &id)?;
    let mut tx = app.db.read(&caller.scope()).await?;
    let found = erasure::get(&mut tx, &id).await?;
    tx.commit().await?;
    sees(&caller, &found)?;
    Ok(Answer::ok(&found)?.of_version(found.version))
}

/// A service's word on a request. Services and operators only; for a node that is lost, operators.
#[utoipa::path(post, path = "/v1/erasures/{id}/answers", tag = "erasures", params(("id" = String, Path)),
    request_body = ErasureAnswer, responses((status = 200, body = Erasure), WriteProblems))]
async fn answer(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Name(id): Name,
    Ask { body, head }: Ask<ErasureAnswer>,
) -> Result<Done<Erasure>, Refusal> {
    caller.serves()?;
    if erasure::nodes::of(&body.service).is_some() {
        caller.operates()?;
    }
    let id = names::plain("id", &id)?;
    let work = async |tx: &mut Tx| erasure::answer(tx, &id, &body).await;
    let answer = |answered: &Erasure| Ok(Answer::ok(answered)?.of_version(answered.version));
    app.write(&caller, &head, work, answer).await
}

/// After a restore from a backup: asks every service again for all requests since then. Operators only.
#[utoipa::path(post, path = "/v1/erasures/replay", tag = "erasures", request_body = Replay,
    responses((status = 200, body = Replayed), WriteProblems))]
async fn replay(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Ask { body, head }: Ask<Replay>,
) -> Result<Done<Replayed>, Refusal> {
    caller.operates()?;
    let work = async |tx: &mut Tx| {
        let requests = erasure::replay(tx, body.since_at_ms).await?;
        Ok::<_, Problem>(Replayed { requests })
    };
    let done = app.write(&caller, &head, work, Answer::ok).await;
    app.erasures_asked.send_replace(());
    done
}
