//! `/v1/keys` and `/v1/login`: stored keys, and the short tokens that they are good for.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, State};
use axum::response::{IntoResponse, Response};
use dormouse_api::registry::Page;
use dormouse_api::registry::login::{CreatedKey, Key, Login, NewKey, Token};
use dormouse_api::{Code, Problem};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ask::{Ask, Name, Nothing, Params};
use super::guard::{Asker, slow_down};
use super::refusal::{ReadProblems, Refusal, WriteProblems};
use super::tenants::Paged;
use super::write::{Answer, Done};
use crate::app::Shared;
use crate::auth::secret;
use crate::auth::token::{Grant, sign};
use crate::names;
use crate::registry::{keys, page_size};
use crate::store::{Scope, Tx};

/// A token cannot be called back: it is short.
const TOKEN_LIVES: Duration = Duration::from_mins(15);

pub fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(delete))
}

pub fn open_routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(login))
}

/// A short token for a stored key.
#[utoipa::path(post, path = "/v1/login", tag = "keys", request_body = Login, security(()),
    responses((status = 200, body = Token), WriteProblems))]
async fn login(
    State(app): State<Shared>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    ask: Ask<Login>,
) -> Result<Response, Refusal> {
    if let Err(wait) = app.login_rate.take(&from.ip().to_string(), Instant::now()) {
        return Ok(slow_down(wait));
    }
    let Login { key, secret } = ask.body;
    let mut tx = app.db.read(&Scope::Region).await?;
    let found = keys::find(&mut tx, &key).await?;
    tx.commit().await?;
    let hash = found.as_ref().map(|(_, hash)| hash.clone());
    let good = secret::verify(secret, hash).await.map_err(|error| Problem::internal(error.to_string()))?;
    let Some((key, _)) = found.filter(|_| good) else {
        let detail = "no such key, or another secret";
        return Err(Problem::new(Code::Unauthorized, detail).into());
    };
    let grant = Grant {
        subject: &key.id,
        region: &app.region.name,
        role: key.role,
        tenant: key.tenant.as_deref(),
        node: key.node.as_deref(),
        lives: TOKEN_LIVES,
    };
    let (token, expires_at_ms) =
        sign(&app.keys.keys(), &grant).map_err(|error| Problem::internal(error.to_string()))?;
    Ok(Answer::ok(&Token { token, expires_at_ms })?.into_response())
}

/// The stored keys, without their secrets. Operators only.
#[utoipa::path(get, path = "/v1/keys", tag = "keys", params(Paged),
    responses((status = 200, body = Page<Key>), ReadProblems))]
async fn list(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Params(paged): Params<Paged>,
) -> Result<Answer, Refusal> {
    caller.operates()?;
    let size = page_size(paged.limit)?;
    let cursor = paged.cursor.as_deref().map(|cursor| names::plain("cursor", cursor)).transpose()?;
    let mut tx = app.db.read(&caller.scope()).await?;
    let page = keys::list(&mut tx, cursor.as_deref(), size).await?;
    tx.commit().await?;
    Ok(Answer::ok(&page)?)
}

/// Makes a key. Its secret is in this answer and nowhere else. Operators only.
///
/// Takes no Idempotency-Key: the answer is not kept.
#[utoipa::path(post, path = "/v1/keys", tag = "keys", request_body = NewKey,
    responses((status = 201, body = CreatedKey), WriteProblems))]
async fn create(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Ask { body, head }: Ask<NewKey>,
) -> Result<Done<CreatedKey>, Refusal> {
    caller.operates()?;
    if head.key.is_some() {
        let detail = "this answer holds a secret and is not kept: send no Idempotency-Key";
        return Err(Problem::bad_field("Idempotency-Key", detail).into());
    }
    let secret = secret::generate();
    let hash = secret::hash(secret.clone()).await.map_err(|error| Problem::internal(error.to_string()))?;
    let work = async |tx: &mut Tx| {
        let key = keys::create(tx, &body, hash).await?;
        Ok::<_, Problem>(CreatedKey { key, secret })
    };
    let answer = |made: &CreatedKey| Answer::created(made, format!("/v1/keys/{}", made.key.id));
    app.write(&caller, &head, work, answer).await
}

/// Removes a key. The tokens that it got live on for at most 15 minutes. Operators only.
#[utoipa::path(delete, path = "/v1/keys/{id}", tag = "keys", params(("id" = String, Path)),
    responses((status = 204), WriteProblems))]
async fn delete(
    State(app): State<Shared>,
    Asker(caller): Asker,
    Name(id): Name,
    Ask { head, .. }: Ask<Nothing>,
) -> Result<Done<()>, Refusal> {
    caller.operates()?;
    let id = names::plain("id", &id)?;
    let work = async |tx: &mut Tx| keys::delete(tx, &id, head.expected).await;
    app.write(&caller, &head, work, |()| Ok(Answer::nothing())).await
}
