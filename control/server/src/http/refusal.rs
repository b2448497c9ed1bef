//! Problems as answers (RFC 9457), and which of them an endpoint may give.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dormouse_api::{Code, Problem, problem};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response as Documented, ResponseBuilder};

use crate::store::StoreError;

/// What is answered instead of doing what was asked.
#[derive(Debug)]
pub enum Refusal {
    Problem(Problem),
    /// It was done before: this was the answer.
    Again(Box<Response>),
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Problem(error.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let problem = match self {
            Self::Problem(problem) => problem,
            Self::Again(answer) => return *answer,
        };
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let code = problem.code;
        let media_type = HeaderValue::from_static(problem::MEDIA_TYPE);
        let mut answer = (status, [(header::CONTENT_TYPE, media_type)], Json(problem)).into_response();
        match code {
            Code::Unauthorized => {
                answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Code::Unavailable | Code::TooManyRequests => {
                answer.headers_mut().entry(header::RETRY_AFTER).or_insert(HeaderValue::from_static("1"));
            }
            _ => {}
        }
        answer
    }
}

/// What the database says is for the log; the asker learns whether to ask again.
impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if error.is_passing() {
            tracing::warn!(%error, "the database doesn't answer");
            return Self::new(Code::Unavailable, "the database doesn't answer now")
                .with_remedy("ask again in a second; a write with an Idempotency-Key is safe to repeat");
        }
        tracing::error!(%error, "a request failed");
        Self::internal("the control plane failed; its log says why")
    }
}

fn documented(codes: &[Code]) -> BTreeMap<String, RefOr<Documented>> {
    let answer = |code: &Code| {
        let problem = Problem::new(*code, "");
        let schema = Ref::from_schema_name("Problem");
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let response =
            ResponseBuilder::new().description(problem.title).content(problem::MEDIA_TYPE, content).build();
        (code.status().to_string(), RefOr::T(response))
    };
    codes.iter().map(answer).collect()
}

/// What a read may be answered besides its own.
pub struct ReadProblems;

impl utoipa::IntoResponses for ReadProblems {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        documented(&[
            Code::Unauthorized,
            Code::Forbidden,
            Code::NotFound,
            Code::Misdirected,
            Code::BadField,
            Code::TooManyRequests,
            Code::Unavailable,
            Code::Internal,
        ])
    }
}

/// What a write may be answered besides its own.
pub struct WriteProblems;

impl utoipa::IntoResponses for WriteProblems {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        documented(&[
            Code::Unauthorized,
            Code::Forbidden,
            Code::NotFound,
            Code::Refused,
            Code::Changed,
            Code::TooLarge,
            Code::UnsupportedMediaType,
            Code::Misdirected,
            Code::BadField,
            Code::TooManyRequests,
            Code::Unavailable,
            Code::Internal,
        ])
    }
}
