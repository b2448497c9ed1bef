//! A write's transaction: repeated with the same `Idempotency-Key` it is answered as the first time.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dormouse_api::Problem;
use serde::{Deserialize, Serialize};

use super::ask::{Head, etag};
use super::refusal::Refusal;
use crate::app::App;
use crate::auth::Caller;
use crate::store::{Tx, args};
use crate::{clock, failpoint};

/// How long an answer is kept for a repeated request.
pub const KEPT: std::time::Duration = std::time::Duration::from_hours(24);

/// `true` on an answer that was given before.
static REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What a write answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    location: Option<String>,
    /// JSON; `None`: an answer without a body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<String>,
}

impl Answer {
    pub fn ok(body: &impl Serialize) -> Result<Self, Problem> {
        let body = serde_json::to_string(body)
            .map_err(|error| Problem::internal(format!("an answer cannot be written as JSON: {error}")))?;
        Ok(Self { status: 200, etag: None, location: None, body: Some(body) })
    }

    pub fn created(body: &impl Serialize, location: String) -> Result<Self, Problem> {
        Ok(Self { status: 201, location: Some(location), ..Self::ok(body)? })
    }

    /// Taken on, to be done by somebody else.
    pub fn accepted(body: &impl Serialize, location: String) -> Result<Self, Problem> {
        Ok(Self { status: 202, location: Some(location), ..Self::ok(body)? })
    }

    pub const fn nothing() -> Self {
        Self { status: 204, etag: None, location: None, body: None }
    }

    #[must_use]
    pub fn of_version(mut self, version: u64) -> Self {
        self.etag = Some(etag(version));
        self
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = match self.body {
            Some(body) => {
                let json = HeaderValue::from_static("application/json");
                (status, [(header::CONTENT_TYPE, json)], body).into_response()
            }
            None => status.into_response(),
        };
        for (name, value) in [(header::ETAG, self.etag), (header::LOCATION, self.location)] {
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

/// A write under way; dropped unfinished it leaves nothing.
pub struct Write {
    pub tx: Tx,
    subject: String,
    key: Option<String>,
    digest: String,
}

impl App {
    pub async fn begin(&self, caller: &Caller, head: &Head) -> Result<Write, Refusal> {
        if let Some(key) = &head.key {
            failpoint::arm(key);
        }
        let scope = caller.scope();
        let mut tx = match &head.key {
            None => self.db.write(&scope).await?,
            // The same request beside this one waits here for the answer.
            Some(key) => self.db.write_holding(&scope, &format!("{} {key}", caller.subject)).await?,
        };
        if let Some(key) = &head.key
            && let Some(answer) = given(&mut tx, &caller.subject, key, &head.digest).await?
        {
            // The first one's change may be read here before it is on the disk.
            tx.commit().await?;
            return Err(Refusal::Again(Box::new(answer)));
        }
        let (subject, key, digest) = (caller.subject.clone(), head.key.clone(), head.digest.clone());
        Ok(Write { tx, subject, key, digest })
    }

    /// Keeps the answer beside the change, commits both, and only then gives it.
    pub async fn finish(&self, write: Write, answer: Answer) -> Result<Response, Refusal> {
        let Write { mut tx, subject, key, digest } = write;
        if let Some(key) = key {
            let text = serde_json::to_string(&answer)
                .map_err(|error| Problem::internal(format!("an answer cannot be kept: {error}")))?;
            let values = args![&subject, &key, &digest, text, clock::now_ms()];
            tx.insert_last("idempotency", "subject, key, request, answer, created_at", &values);
        }
        tx.commit().await?;
        failpoint::statement();
        failpoint::at("after-commit");
        self.posted.notify_one();
        Ok(answer.into_response())
    }
}

/// The answer that this key was given; a different request under the same key is refused.
async fn given(tx: &mut Tx, subject: &str, key: &str, digest: &str) -> Result<Option<Response>, Refusal> {
    let sql = "SELECT request, answer FROM idempotency WHERE subject = $1 AND key = $2";
    let Some(row) = tx.row(sql, &args![subject, key]).await? else { return Ok(None) };
    if row.text("request")? != digest {
        let detail = "this Idempotency-Key was used for another request";
        return Err(Problem::bad_field("Idempotency-Key", detail).into());
    }
    let mut response = row.json::<Answer>("answer")?.into_response();
    response.headers_mut().insert(REPLAYED.clone(), HeaderValue::from_static("true"));
    Ok(Some(response))
}
