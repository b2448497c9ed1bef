//! Nobody gets past without a good token, and nobody asks more often than they may.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use dormouse_api::{Code, Problem};

use super::locate;
use super::refusal::Refusal;
use crate::app::Shared;
use crate::auth::Caller;

/// Puts the [`Caller`] into the request, or refuses it.
pub async fn guard(State(app): State<Shared>, mut request: Request, next: Next) -> Response {
    let caller = match bearer(request.headers()).and_then(|token| {
        app.caller(token).map_err(|error| unauthorized(&format!("the token is not accepted: {error}")))
    }) {
        Ok(caller) => caller,
        Err(problem) => return Refusal::Problem(problem).into_response(),
    };
    if let Err(wait) = app.admit(&caller) {
        return slow_down(wait);
    }
    let address = request.uri().path().to_owned();
    request.extensions_mut().insert(caller.clone());
    let answer = next.run(request).await;
    // A server that isn't here may be another region's.
    if answer.status() == StatusCode::NOT_FOUND
        && app.index().is_some()
        && let Some(name) = server_in(&address)
        && let Some(elsewhere) = locate::misdirected(&app, &caller, &name, &address).await
    {
        return elsewhere;
    }
    answer
}

/// The server that an address is about.
fn server_in(address: &str) -> Option<String> {
    let segment = address.strip_prefix("/v1/servers/")?.split('/').next()?;
    // Names are ASCII: the one letter that is encoded in a well-formed one is `/`.
    Some(segment.replace("%2F", "/").replace("%2f", "/"))
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    value
        .and_then(|value| value.strip_prefix("Bearer "))
        .ok_or_else(|| unauthorized("no token: send it as `Authorization: Bearer …`"))
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(Code::Unauthorized, detail).with_remedy("`dormouse login` gets a token for a stored key")
}

pub fn slow_down(wait: std::time::Duration) -> Response {
    let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
    let detail = format!("too many requests: the next one in {seconds} s");
    let mut answer = Refusal::Problem(Problem::new(Code::TooManyRequests, detail)).into_response();
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    answer
}

/// The caller that [`guard`] found.
pub struct Asker(pub Arc<Caller>);

impl<S: Send + Sync> FromRequestParts<S> for Asker {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let caller = parts.extensions.get::<Arc<Caller>>().cloned();
        // An endpoint beside the guard is a bug that shows at its first request.
        caller.map(Self).ok_or_else(|| Problem::internal("an endpoint without a guard").into())
    }
}
