//! `/v1/profiles` and `/v1/servers/{name}/limits`: the registry's two layers of thresholds.

use axum::extract::State;
use dormouse_api::profile::Explain;
use dormouse_api::registry::Page;
use dormouse_api::registry::threshold::{Change, NewProfile, Profile, SetThreshold};
use dormouse_api::{Problem, path};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ask::{self, Ask, Head, Name, Names, Nothing, Params};
use super::guard::Asker;
use super::refusal::{ReadProblems, Refusal, WriteProblems};
use super::tenants::Paged;
use super::write::{Answer, Done};
use crate::app::{App, Shared};
use crate::auth::Caller;
use crate::names;
use crate::registry::page_size;
use crate::registry::profiles::{self, Of};
use crate::store::Tx;

pub fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(explain_profile, set_profile, delete))
        .routes(routes!(unset_profile))
        .routes(routes!(profile_history))
        .routes(routes!(explain_server, set_server))
        .routes(routes!(unset_server))
        .routes(routes!(server_history))
}

/// A game's layer, to be read by all.
fn game(name: &str) -> Result<Of, Problem> {
    Ok(Of::Profile(names::plain("name", name)?))
}

/// A server's layer, for its tenant and operators.
fn own(caller: &Caller, name: &str) -> Result<Of, Problem> {
    let name = ask::server(name)?;
    caller.sees(&name)?;
    Ok(Of::Server(name))
}

async fn explained(app: &App, caller: &Caller, of: &Of) -> Result<Answer, Refusal> {
    let mut tx = app.db.read(&caller.scope()).await?;
    let (explain, version) = profiles::explain(&mut tx, &app.region.name, of).await?;
    tx.commit().await?;
    Ok(Answer::ok(&explain)?.of_version(version))
}

/// Sets (`Some` value) or removes a key, and answers what holds then.
async fn changed(
    app: &App,
    caller: &Caller,
    of: &Of,
    change: &SetThreshold,
    remove: bool,
    head: &Head,
) -> Result<Done<(Explain, u64)>, Refusal> {
    let work = async |tx: &mut Tx| {
        profiles::set(tx, of, &caller.subject, change, remove, head.expected).await?;
        profiles::explain(tx, &app.region.name, of).await
    };
    let answer = |(explain, version): &(Explain, u64)| Ok(Answer::ok(explain)?.of_version(*version));
    app.write(caller, head, work, answer).await
}

async fn told(app: &App, caller: &Caller, of: &Of, paged: &Paged) -> Result<Answer, Refusal> {
    let size = page_size(paged.limit)?;
    let read = |text: &str| {
        text.parse().map_err(|_| Problem::bad_field("cursor", "cursor is `next` of the page before"))
    };
    let cursor: Option<u64> = paged.cursor.as_deref().map(read).transpose()?;
    let mut tx = app.db.read(&caller.scope()).await?;
    // Of a thing that isn't there there is no history to tell.
    profiles::explain(&mut tx, &app.region.name, of).await?;
    let page = profiles::history(&mut tx, of, cursor, size).await?;
    tx.commit().await?;
    Ok(Answer::ok(&page)?)
}

/// The games' profiles, and how many of one's own servers use each.
#[utoipa::path(get, path = "/v1/profiles", tag = "profiles", params(Paged),
    responses((status = 200, body = Page<Profile>), ReadProblems))]
async fn list(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Params(paged): Params<Paged>,
) -> Result<Answer, Refusal> {
    let tenant = caller.lists(None)?;
    let size = page_size(paged.limit)?;
    let cursor = paged.cursor.as_deref().map(|cursor| names::plain("cursor", cursor)).transpose()?;
    let mut tx = app.db.read(&caller.scope()).await?;
    let page = profiles::list(&mut tx, tenant.as_deref(), cursor.as_deref(), size).await?;
    tx.commit().await?;
    Ok(Answer::ok(&page)?)
}

/// Adds a profile without limits of its own. Operators only.
#[utoipa::path(post, path = "/v1/profiles", tag = "profiles", request_body = NewProfile,
    responses((status = 201, body = Profile), WriteProblems))]
async fn create(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Ask { body, head }: Ask<NewProfile>,
) -> Result<Done<Profile>, Refusal> {
    caller.operates()?;
    let work = async |tx: &mut Tx| profiles::create(tx, &body).await;
    let answer = |profile: &Profile| {
        let location = format!("/v1/profiles/{}", path::encode(&profile.name));
        Ok(Answer::created(profile, location)?.of_version(1))
    };
    app.write(&caller, &head, work, answer).await
}

/// A game's thresholds: every layer, and which one won.
#[utoipa::path(get, path = "/v1/profiles/{name}", tag = "profiles", params(("name" = String, Path)),
    responses((status = 200, body = Explain), ReadProblems))]
async fn explain_profile(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Name(name): Name,
) -> Result<Answer, Refusal> {
    caller.manages()?;
    explained(&app, &caller, &game(&name)?).await
}

/// Sets one of a game's thresholds. Operators only.
#[utoipa::path(patch, path = "/v1/profiles/{name}", tag = "profiles", params(("name" = String, Path)),
    request_body = SetThreshold, responses((status = 200, body = Explain), WriteProblems))]
async fn set_profile(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Name(name): Name,
    ask: Ask<SetThreshold>,
) -> Result<Done<(Explain, u64)>, Refusal> {
    caller.operates()?;
    changed(&app, &caller, &game(&name)?, &ask.body, false, &ask.head).await
}

/// Removes one of a game's thresholds. Operators only.
#[utoipa::path(delete, path = "/v1/profiles/{name}/{key}", tag = "profiles",
    params(("name" = String, Path), ("key" = String, Path)),
    responses((status = 200, body = Explain), WriteProblems))]
async fn unset_profile(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Names(name, key): Names,
    ask: Ask<Nothing>,
) -> Result<Done<(Explain, u64)>, Refusal> {
    caller.operates()?;
    let change = SetThreshold { key, value: String::new(), reason: None };
    changed(&app, &caller, &game(&name)?, &change, true, &ask.head).await
}

/// Removes a profile that no server uses. Operators only.
#[utoipa::path(delete, path = "/v1/profiles/{name}", tag = "profiles", params(("name" = String, Path)),
    responses((status = 204), WriteProblems))]
async fn delete(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Name(name): Name,
    Ask { head, .. }: Ask<Nothing>,
) -> Result<Done<()>, Refusal> {
    caller.operates()?;
    let name = names::plain("name", &name)?;
    let work = async |tx: &mut Tx| profiles::delete(tx, &name, head.expected).await;
    app.write(&caller, &head, work, |()| Ok(Answer::nothing())).await
}

/// Who changed a game's thresholds, newest first.
#[utoipa::path(get, path = "/v1/profiles/{name}/history", tag = "profiles",
    params(("name" = String, Path), Paged), responses((status = 200, body = Page<Change>), ReadProblems))]
async fn profile_history(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Name(name): Name,
    Params(paged): Params<Paged>,
) -> Result<Answer, Refusal> {
    caller.manages()?;
    told(&app, &caller, &game(&name)?, &paged).await
}

/// A server's thresholds: every layer, and which one won.
///
/// An operator's override is the node's own: `dormouse profile explain` at the node shows it too.
#[utoipa::path(get, path = "/v1/servers/{name}/limits", tag = "servers", params(("name" = String, Path)),
    responses((status = 200, body = Explain), ReadProblems))]
async fn explain_server(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Name(name): Name,
) -> Result<Answer, Refusal> {
    explained(&app, &caller, &own(&caller, &name)?).await
}

/// Sets one of a server's thresholds.
#[utoipa::path(patch, path = "/v1/servers/{name}/limits", tag = "servers", params(("name" = String, Path)),
    request_body = SetThreshold, responses((status = 200, body = Explain), WriteProblems))]
async fn set_server(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Name(name): Name,
    ask: Ask<SetThreshold>,
) -> Result<Done<(Explain, u64)>, Refusal> {
    changed(&app, &caller, &own(&caller, &name)?, &ask.body, false, &ask.head).await
}

/// Removes one of a server's thresholds.
#[utoipa::path(delete, path = "/v1/servers/{name}/limits/{key}", tag = "servers",
    params(("name" = String, Path), ("key" = String, Path)),
    responses((status = 200, body = Explain), WriteProblems))]
async fn unset_server(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Names(name, key): Names,
    ask: Ask<Nothing>,
) -> Result<Done<(Explain, u64)>, Refusal> {
    let change = SetThreshold { key, value: String::new(), reason: None };
    changed(&app, &caller, &own(&caller, &name)?, &change, true, &ask.head).await
}

/// Who changed a server's thresholds, newest first.
#[utoipa::path(get, path = "/v1/servers/{name}/limits/history", tag = "servers",
    params(("name" = String, Path), Paged), responses((status = 200, body = Page<Change>), ReadProblems))]
async fn server_history(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Name(name): Name,
    Params(paged): Params<Paged>,
) -> Result<Answer, Refusal> {
    told(&app, &caller, &own(&caller, &name)?, &paged).await
}
