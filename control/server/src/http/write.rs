//! A write's transaction: repeated with the same `Idempotency-Key` it is answered as the first time.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dormouse_api::{Code, Problem};
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

/// A write that was done and committed, and its answer.
pub struct Done<T> {
    pub what: T,
    answer: Answer,
}

impl<T> IntoResponse for Done<T> {
    fn into_response(self) -> Response {
        self.answer.into_response()
    }
}

impl App {
    /// Does a write and keeps its answer for a repeated request, in one transaction.
    ///
    /// Nobody looks first whether the key was used already. The answer is kept at the end, one to a key: of two requests
    /// with the same key the second waits there, or before at what both change, for the end of the first, and fails.
    /// Whoever fails looks then for an answer that was given before.
    ///
    /// # Errors
    /// What `work` or `answer` refused; [`Refusal::Again`] with the answer of the first time.
    pub async fn write<T, E: Into<Refusal>>(
        &self,
        caller: &Caller,
        head: &Head,
        work: impl AsyncFnOnce(&mut Tx) -> Result<T, E>,
        answer: impl FnOnce(&T) -> Result<Answer, Problem>,
    ) -> Result<Done<T>, Refusal> {
        self.write_noting(caller, head, work, answer, async |_: &T| Ok(())).await
    }

    /// As [`Self::write`]; `note` writes elsewhere what was done, when nothing but the commit can fail any more.
    pub async fn write_noting<T, E: Into<Refusal>>(
        &self,
        caller: &Caller,
        head: &Head,
        work: impl AsyncFnOnce(&mut Tx) -> Result<T, E>,
        answer: impl FnOnce(&T) -> Result<Answer, Problem>,
        note: impl AsyncFnOnce(&T) -> Result<(), Problem>,
    ) -> Result<Done<T>, Refusal> {
        failpoint::arm(head.key.as_deref().unwrap_or("no-key"));
        let tx = self.db.write(&caller.scope()).await?;
        let attempt = async {
            let mut tx = tx;
            let what = work(&mut tx).await.map_err(Into::into)?;
            let answer = answer(&what)?;
            keep(&mut tx, caller, head, &answer).await?;
            note(&what).await?;
            tx.commit().await?;
            Ok(Done { what, answer })
        };
        let refusal = match attempt.await {
            Ok(done) => {
                failpoint::statement();
                failpoint::at("after-commit");
                self.posted.notify_one();
                return Ok(done);
            }
            // What was done is undone by now.
            Err(refusal) => refusal,
        };
        let given = self.given(caller, head).await?;
        Err(given.map_or(refusal, |answer| Refusal::Again(Box::new(answer))))
    }

    /// The answer that this key was given; a different request under the same key is refused.
    async fn given(&self, caller: &Caller, head: &Head) -> Result<Option<Response>, Refusal> {
        let Some(key) = &head.key else { return Ok(None) };
        let mut tx = self.db.write(&caller.scope()).await?;
        let sql = "SELECT request, answer FROM idempotency WHERE subject = $1 AND key = $2";
        let Some(row) = tx.row(sql, &args![&caller.subject, key]).await? else { return Ok(None) };
        // On SQLite the first one's change may be read here before it is on the disk.
        tx.commit().await?;
        if row.text("request")? != head.digest {
            let detail = "this Idempotency-Key was used for another request";
            return Err(Problem::bad_field("Idempotency-Key", detail).into());
        }
        let mut response = row.json::<Answer>("answer")?.into_response();
        response.headers_mut().insert(REPLAYED.clone(), HeaderValue::from_static("true"));
        Ok(Some(response))
    }
}

/// The last that is written: who comes here second finds the place taken, once the first has committed.
async fn keep(tx: &mut Tx, caller: &Caller, head: &Head, answer: &Answer) -> Result<(), Problem> {
    if let Some(key) = &head.key {
        let text = serde_json::to_string(answer)
            .map_err(|error| Problem::internal(format!("an answer cannot be kept: {error}")))?;
        let values = args![&caller.subject, key, &head.digest, text, clock::now_ms()];
        tx.insert_last("idempotency", "subject, key, request, answer, created_at", &values);
    }
    match tx.write_last().await {
        // Said only if the first one's answer is forgotten when it is looked for.
        Err(error) if error.is_duplicate() => {
            Err(Problem::new(Code::Unavailable, "this Idempotency-Key is in use; ask again"))
        }
        written => Ok(written?),
    }
}
