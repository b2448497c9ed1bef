//! `/v1/locate`, `/v1/index` and placement: which region owns a server, which one should.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dormouse_api::registry::locate::{IndexCheck, Location};
use dormouse_api::registry::server::NewServer;
use dormouse_api::{Code, Problem};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ask::{self, Ask, Name, Nothing};
use super::guard::Asker;
use super::refusal::{ReadProblems, Refusal, WriteProblems};
use super::write::Answer;
use crate::app::{App, Shared};
use crate::auth::Caller;
use crate::auth::token::{Grant, sign};
use crate::index::refresh::IndexError;
use crate::index::{Index, check, regions};
use crate::names::{self, ServerName};
use crate::registry::{nodes, servers};
use crate::store::{Scope, Tx};

/// As long as one console command or a redirect takes.
const HAND_OFF: Duration = Duration::from_mins(1);

pub fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(locate)).routes(routes!(check_index)).routes(routes!(repair_index))
}

/// The region that owns a server, its address, and a token that only it accepts, for a minute.
#[utoipa::path(get, path = "/v1/locate/{server}", tag = "routing", params(("server" = String, Path)),
    responses((status = 200, body = Location), ReadProblems))]
async fn locate(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Name(name): Name,
) -> Result<Answer, Refusal> {
    let name = ask::server(&name)?;
    caller.sees(&name)?;
    let mut tx = app.db.read(&caller.scope()).await?;
    let own = match servers::get(&mut tx, &app.region.name, &name).await {
        Ok(_) => true,
        Err(problem) if problem.code == Code::NotFound => false,
        Err(problem) => return Err(problem.into()),
    };
    tx.commit().await?;
    let (region, url) = if own {
        (app.region.name.clone(), app.region.url.clone())
    } else {
        elsewhere(&app, &name).await.ok_or_else(|| servers::no_such(&name))?
    };
    let scope = caller.scope();
    let grant = Grant {
        subject: &caller.subject,
        region: &region,
        role: caller.role,
        tenant: scope.tenant(),
        node: None,
        lives: HAND_OFF,
    };
    let (token, expires_at_ms) =
        sign(&app.keys.keys(), &grant).map_err(|error| Problem::internal(error.to_string()))?;
    Ok(Answer::ok(&Location { server: name.to_string(), region, url, token, expires_at_ms, own })?)
}

/// What the index hints at: another region, and its address.
async fn elsewhere(app: &App, name: &ServerName) -> Option<(String, String)> {
    let entry = match app.index()?.get(&name.to_string()).await {
        Ok(entry) => entry?,
        Err(error) => {
            tracing::warn!(%error, "the index doesn't answer");
            return None;
        }
    };
    (entry.region != app.region.name).then_some((entry.region, entry.url))
}

/// `421` with the right place, if the index knows another region for a server that isn't here.
pub async fn misdirected(app: &App, caller: &Caller, name: &str, rest: &str) -> Option<Response> {
    let name = ServerName::parse("name", name).ok()?;
    caller.sees(&name).ok()?;
    let (region, url) = elsewhere(app, &name).await?;
    Some(to(&region, &url, rest, &format!("{name} belongs to the region {region}")))
}

fn to(region: &str, url: &str, rest: &str, detail: &str) -> Response {
    let problem = Problem::new(Code::Misdirected, detail)
        .with_remedy(format!("ask {region} at {url}; `/v1/locate` gives a token for it"));
    let mut response = Refusal::from(problem).into_response();
    if let Ok(location) = HeaderValue::from_str(&format!("{url}{rest}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    debug_assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
    response
}

/// Chooses the node of a new server that wants to be near a region; `Err`: another region is the right one.
pub async fn place(app: &App, caller: &Caller, tx: &mut Tx, new: &mut NewServer) -> Result<(), Refusal> {
    let Some(near) = new.near.clone().filter(|_| new.node.is_none()) else { return Ok(()) };
    let near = names::plain("near", &near)?;
    let needed = new.memory_bytes.unwrap_or(0);
    if near == app.region.name {
        // Until the commit nobody else places: what is found free is still free then.
        tx.hold("placement").await?;
        // Nodes belong to no tenant, but what is promised of them does, and a tenant's transaction sees its own only.
        // Not by a second transaction: everybody who waits here holds a connection, and none would be left for it.
        tx.see(&Scope::Region).await?;
        let roomiest = nodes::roomiest(tx).await?;
        tx.see(&caller.scope()).await?;
        if let Some((node, _)) = roomiest.filter(|(_, free)| *free >= needed) {
            new.node = Some(node);
            return Ok(());
        }
    }
    let candidates = if near == app.region.name { app.nearest.clone() } else { vec![near] };
    if let Some(index) = app.index() {
        for candidate in candidates {
            match regions::get(index, &candidate).await {
                Ok(Some(region)) if region.room_bytes >= needed => {
                    let detail = format!("{} is the nearest region with room", region.name);
                    let response = to(&region.name, &region.url, "/v1/servers", &detail);
                    return Err(Refusal::Again(Box::new(response)));
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "the index doesn't answer");
                    return Err(
                        Problem::new(Code::Unavailable, "the other regions cannot be asked now").into()
                    );
                }
            }
        }
    }
    Err(Problem::refused(format!("no region that is known here has {needed} bytes free on one node")).into())
}

fn index(app: &App) -> Result<&Index, Problem> {
    app.index().ok_or_else(|| {
        Problem::refused("this region has no index").with_remedy("start it with --index redis://…")
    })
}

fn failed(error: &IndexError) -> Problem {
    tracing::warn!(%error, "the index was not checked");
    Problem::new(Code::Unavailable, "the index or the database doesn't answer now")
}

/// Every difference between the region's servers and the index. Operators only.
#[utoipa::path(get, path = "/v1/index/check", tag = "routing",
    responses((status = 200, body = IndexCheck), (status = 409, body = Problem, content_type = "application/problem+json"), ReadProblems))]
async fn check_index(State(app): State<Shared>, Asker(caller): Asker) -> Result<Answer, Refusal> {
    caller.operates()?;
    let differences = check::differences(&app, index(&app)?).await.map_err(|error| failed(&error))?;
    Ok(Answer::ok(&IndexCheck { differences })?)
}

/// Writes the index anew from the region's servers; answers what is left. Operators only.
#[utoipa::path(post, path = "/v1/index/repair", tag = "routing",
    responses((status = 200, body = IndexCheck), WriteProblems))]
async fn repair_index(
    State(app): State<Shared>,
    Asker(caller): Asker,
    _: Ask<Nothing>,
) -> Result<Answer, Refusal> {
    caller.operates()?;
    let index = index(&app)?;
    check::repair(&app, index).await.map_err(|error| failed(&error))?;
    let differences = check::differences(&app, index).await.map_err(|error| failed(&error))?;
    Ok(Answer::ok(&IndexCheck { differences })?)
}
