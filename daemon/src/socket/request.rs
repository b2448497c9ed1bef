//! Reading requests strictly: what isn't known is refused by its name.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use dormouse_api::event::{EventFilter, EventKind};
use dormouse_api::savings::SavingsRequest;
use dormouse_api::status::Selector;
use dormouse_api::{Code, Problem};
use serde::de::DeserializeOwned;

use super::answer::Refusal;

/// The largest body that is read.
pub const BODY_LIMIT: usize = 64 << 10;

/// A JSON body; an empty one is `{}`.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| unreadable(&rejection))?;
        Ok(Self(parse(if bytes.is_empty() { b"{}" } else { &bytes })?))
    }
}

fn unreadable(rejection: &BytesRejection) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return Problem::new(Code::TooLarge, format!("the body is larger than {BODY_LIMIT} bytes"));
    }
    Problem::new(Code::BadField, rejection.body_text())
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

/// Names out of the address, percent-decoded.
pub struct Names<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Names<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let names = Path::<T>::from_request_parts(parts, state).await;
        names
            .map(|Path(names)| Self(names))
            .map_err(|rejection| Problem::new(Code::BadField, rejection.body_text()).into())
    }
}

/// The pairs of a query string, in order.
type Pairs = Vec<(String, String)>;

async fn pairs<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<Pairs, Problem> {
    let pairs = Query::<Pairs>::from_request_parts(parts, state).await;
    pairs.map(|Query(pairs)| pairs).map_err(|rejection| Problem::new(Code::BadField, rejection.body_text()))
}

/// `?server=…&server=…&profile=…`
pub struct Selected(pub Selector);

impl<S: Send + Sync> FromRequestParts<S> for Selected {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let mut selector = Selector::default();
        for (key, value) in pairs(parts, state).await? {
            match key.as_str() {
                "server" => selector.servers.push(value),
                "profile" => once(&mut selector.profile, &key, value)?,
                _ => return Err(unknown(&key, "server, profile").into()),
            }
        }
        Ok(Self(selector))
    }
}

/// `?server=…&profile=…&type=…&follow=true`
pub struct Filtered(pub EventFilter);

impl<S: Send + Sync> FromRequestParts<S> for Filtered {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let mut filter = EventFilter::default();
        for (key, value) in pairs(parts, state).await? {
            match key.as_str() {
                "server" => filter.servers.push(value),
                "profile" => once(&mut filter.profile, &key, value)?,
                "type" => filter.kinds.push(EventKind::from_name(&value).ok_or_else(|| {
                    let known = EventKind::ALL.map(EventKind::name).join(", ");
                    Problem::bad_field("type", format!("no event has the type {value:?}; known: {known}"))
                })?),
                "follow" => {
                    filter.follow = value.parse().map_err(|_| {
                        Problem::bad_field("follow", format!("follow is true or false, not {value:?}"))
                    })?;
                }
                _ => return Err(unknown(&key, "server, profile, type, follow").into()),
            }
        }
        Ok(Self(filter))
    }
}

/// `?since_at_ms=…&until_at_ms=…&server=…&profile=…`
pub struct Summed(pub SavingsRequest);

impl<S: Send + Sync> FromRequestParts<S> for Summed {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let mut request = SavingsRequest::default();
        for (key, value) in pairs(parts, state).await? {
            match key.as_str() {
                "server" => request.servers.servers.push(value),
                "profile" => once(&mut request.servers.profile, &key, value)?,
                "since_at_ms" => request.since_at_ms = Some(moment(&key, &value)?),
                "until_at_ms" => request.until_at_ms = Some(moment(&key, &value)?),
                _ => return Err(unknown(&key, "since_at_ms, until_at_ms, server, profile").into()),
            }
        }
        Ok(Self(request))
    }
}

fn moment(key: &str, value: &str) -> Result<u64, Problem> {
    value
        .parse()
        .map_err(|_| Problem::bad_field(key, format!("{key} is milliseconds since 1970, not {value:?}")))
}

fn once(field: &mut Option<String>, key: &str, value: String) -> Result<(), Problem> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(Problem::bad_field(key, format!("{key} is given twice"))),
    }
}

fn unknown(key: &str, known: &str) -> Problem {
    Problem::bad_field(key, format!("unknown parameter {key:?}; known: {known}"))
}

/// Every question that the socket takes: the first line is the address's query, the rest the body.
#[cfg(fuzzing)]
pub fn fuzz(query: &[u8], body: &[u8]) {
    use dormouse_api::adopt::AdoptRequest;
    use dormouse_api::command::{KeepRequest, ModeRequest, SleepRequest, WakeRequest};
    use dormouse_api::profile::SetRequest;
    use std::task::{Context, Poll, Waker};

    let _ = parse::<AdoptRequest>(body);
    let _ = parse::<KeepRequest>(body);
    let _ = parse::<ModeRequest>(body);
    let _ = parse::<SleepRequest>(body);
    let _ = parse::<WakeRequest>(body);
    let _ = parse::<SetRequest>(body);
    let address = [b"/v1/events?".as_slice(), query].concat();
    let Ok(request) = axum::http::Request::builder().uri(address.as_slice()).body(()) else { return };
    let (mut parts, ()) = request.into_parts();
    let mut nothing = Context::from_waker(Waker::noop());
    for which in 0..2 {
        let ready = if which == 0 {
            std::pin::pin!(Selected::from_request_parts(&mut parts, &())).poll(&mut nothing).map(|_| ())
        } else {
            std::pin::pin!(Filtered::from_request_parts(&mut parts, &())).poll(&mut nothing).map(|_| ())
        };
        assert_eq!(ready, Poll::Ready(()), "reading a query waits for nobody");
    }
}
