//! Answers: JSON, or a problem.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dormouse_api::{Problem, problem};

/// A problem as an HTTP answer (RFC 9457).
pub struct Refusal(pub Problem);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let media_type = HeaderValue::from_static(problem::MEDIA_TYPE);
        (status, [(header::CONTENT_TYPE, media_type)], Json(self.0)).into_response()
    }
}

/// What every handler gives back.
pub type Reply<T> = Result<Json<T>, Refusal>;

/// An operator's answer as a handler's.
pub fn reply<T>(answer: Result<T, Problem>) -> Reply<T> {
    answer.map(Json).map_err(Refusal)
}
