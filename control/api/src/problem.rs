//! What went wrong, in the shape of RFC 9457 ("Problem Details for HTTP APIs").

use serde::{Deserialize, Serialize};

/// The media type of a problem's JSON (RFC 9457 §3).
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Why a request has no answer. `detail` is a sentence for the operator, `remedy` what to do about it.
///
/// Boxed words keep it under the 128 bytes that an `Err` should have at most (clippy, `result_large_err`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// RFC 9457 `type`: a name that never changes, `urn:dormouse:` and the code.
    #[serde(rename = "type")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub kind: Box<str>,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub title: Box<str>,
    /// The HTTP status, repeated for readers that have only the body.
    pub status: u16,
    pub detail: String,
    /// The field of the request that is at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    pub code: Code,
}

/// What programs decide by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Understood, possible, and not done: the detail is the reason.
    Refused,
    NotFound,
    MethodNotAllowed,
    BadField,
    TooLarge,
    Internal,
    /// No token, or none that holds.
    Unauthorized,
    /// A good token that may not do this.
    Forbidden,
    /// Somebody changed it since it was read (`If-Match`).
    Changed,
    /// The body's media type is not `application/json`.
    UnsupportedMediaType,
    /// Another region owns it (RFC 9110 §15.5.20).
    Misdirected,
    TooManyRequests,
    /// The database or an index doesn't answer; asking again later is right.
    Unavailable,
}

impl Code {
    /// The HTTP status that goes with the code.
    pub const fn status(self) -> u16 {
        match self {
            Self::Refused => 409,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::BadField => 422,
            Self::TooLarge => 413,
            Self::Internal => 500,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::Changed => 412,
            Self::UnsupportedMediaType => 415,
            Self::Misdirected => 421,
            Self::TooManyRequests => 429,
            Self::Unavailable => 503,
        }
    }

    const fn name_and_title(self) -> (&'static str, &'static str) {
        match self {
            Self::Refused => ("refused", "Refused"),
            Self::NotFound => ("not-found", "Not found"),
            Self::MethodNotAllowed => ("method-not-allowed", "Method not allowed"),
            Self::BadField => ("bad-field", "Bad request"),
            Self::TooLarge => ("too-large", "Request too large"),
            Self::Internal => ("internal", "Internal error"),
            Self::Unauthorized => ("unauthorized", "Not logged in"),
            Self::Forbidden => ("forbidden", "Not allowed"),
            Self::Changed => ("changed", "Changed meanwhile"),
            Self::UnsupportedMediaType => ("unsupported-media-type", "Unsupported media type"),
            Self::Misdirected => ("misdirected", "Another region's"),
            Self::TooManyRequests => ("too-many-requests", "Too many requests"),
            Self::Unavailable => ("unavailable", "Not available now"),
        }
    }
}

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let (name, title) = code.name_and_title();
        Self {
            kind: format!("urn:dormouse:{name}").into(),
            title: title.into(),
            status: code.status(),
            detail: detail.into(),
            field: None,
            remedy: None,
            code,
        }
    }

    /// The server exists, and what was asked would hurt it or its players.
    pub fn refused(reason: impl Into<String>) -> Self {
        Self::new(Code::Refused, reason)
    }

    pub fn no_such_server(name: &str) -> Self {
        Self::new(Code::NotFound, format!("no server is called {name}"))
            .with_remedy("`dormouse status` lists the servers, `dormouse adopt` adds one")
    }

    pub fn no_such_profile(name: &str) -> Self {
        Self::new(Code::NotFound, format!("no profile is called {name}"))
            .with_remedy("`dormouse profile list` lists the profiles")
    }

    pub fn bad_field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..Self::new(Code::BadField, detail) }
    }

    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(Code::Internal, detail)
    }

    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.detail)?;
        if let Some(field) = &self.field
            && !self.detail.contains(field.as_str())
        {
            write!(f, " (field {field})")?;
        }
        match &self.remedy {
            Some(remedy) => write!(f, "\n{remedy}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}
