//! Reading requests strictly: what isn't known is refused by its name.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use dormouse_api::{Code, Problem};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::refusal::Refusal;
use crate::names::ServerName;

/// The largest body that is read, but for a node's report.
pub const BODY_LIMIT: usize = 64 << 10;

/// A write: its body, and the headers that make it safe to repeat and to run beside others.
#[derive(Debug)]
pub struct Ask<T> {
    pub body: T,
    pub head: Head,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// `Idempotency-Key`
    pub key: Option<String>,
    /// Of method, address and body: the same key with another request is a mistake.
    pub digest: String,
    /// `If-Match`
    pub expected: Option<u64>,
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Ask<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let headers = request.headers().clone();
        let mut hash = Sha256::new();
        hash.update(request.method().as_str());
        hash.update([0]);
        hash.update(request.uri().path());
        hash.update([0]);
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| unreadable(&rejection))?;
        hash.update(&bytes);
        let body = if bytes.is_empty() {
            parse(b"{}")?
        } else {
            is_json(&headers)?;
            parse(&bytes)?
        };
        let head =
            Head { key: key(&headers)?, digest: crate::hex(&hash.finalize()), expected: expected(&headers)? };
        Ok(Self { body, head })
    }
}

/// A request whose body says nothing.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

fn unreadable(rejection: &BytesRejection) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return Problem::new(Code::TooLarge, "the body is larger than this endpoint reads");
    }
    Problem::new(Code::BadField, rejection.body_text())
}

fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    let said = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = said.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Problem::new(Code::UnsupportedMediaType, "the body must be application/json"))
}

fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let fine =
        |text: &&str| (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    let text = value.to_str().ok().filter(fine).ok_or_else(|| {
        Problem::bad_field("Idempotency-Key", "an Idempotency-Key is 1 to 128 visible ASCII characters")
    })?;
    Ok(Some(text.to_owned()))
}

/// The version in `If-Match`; `*` and nothing match all.
fn expected(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let version =
        text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).and_then(|text| text.parse().ok());
    let unread =
        || Problem::bad_field("If-Match", "If-Match is one ETag as it was given, for instance \"3\"");
    version.map(Some).ok_or_else(unread)
}

pub fn etag(version: u64) -> String {
    format!("\"{version}\"")
}

fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let value: T = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let field = error.path().to_string();
        let problem = Problem::new(Code::BadField, error.inner().to_string());
        // `.` is the path of the body as a whole.
        Problem { field: (field != ".").then_some(field), ..problem }
    })?;
    reader.end().map_err(|error| Problem::new(Code::BadField, error.to_string()))?;
    Ok(value)
}

/// The one name in an address, percent-decoded.
#[derive(Debug)]
pub struct Name(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let name = Path::<String>::from_request_parts(parts, state).await;
        name.map(|Path(name)| Self(name))
            .map_err(|rejection| Problem::new(Code::BadField, rejection.body_text()).into())
    }
}

/// Two names in an address.
#[derive(Debug)]
pub struct Names(pub String, pub String);

impl<S: Send + Sync> FromRequestParts<S> for Names {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let names = Path::<(String, String)>::from_request_parts(parts, state).await;
        names
            .map(|Path((first, second))| Self(first, second))
            .map_err(|rejection| Problem::new(Code::BadField, rejection.body_text()).into())
    }
}

/// The server in an address.
pub fn server(name: &str) -> Result<ServerName, Problem> {
    ServerName::parse("name", name)
}

/// A query string.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let params = Query::<T>::from_request_parts(parts, state).await;
        params
            .map(|Query(params)| Self(params))
            .map_err(|rejection| Problem::bad_field("query", rejection.body_text()).into())
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn if_match_is_one_etag() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_MATCH, HeaderValue::from_static(text));
            expected(&headers)
        };
        assert_eq!(of("\"7\"").unwrap(), Some(7));
        assert_eq!(of("*").unwrap(), None);
        for bad in ["7", "W/\"7\"", "\"7\", \"8\"", "\"\"", "\"-1\""] {
            assert_eq!(of(bad).unwrap_err().field.as_deref(), Some("If-Match"), "{bad}");
        }
    }

    #[test]
    fn a_problem_names_the_field() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Body {
            #[expect(dead_code, reason = "only read")]
            name: String,
        }
        assert_eq!(parse::<Body>(br#"{"name": 3}"#).unwrap_err().field.as_deref(), Some("name"));
        assert!(parse::<Body>(br#"{"name": "a", "nmae": "b"}"#).unwrap_err().detail.contains("nmae"));
        assert!(parse::<Body>(br#"{"name": "a"} x"#).is_err());
    }
}
