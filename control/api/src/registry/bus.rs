//! Events between services: CloudEvents 1.0 in JSON (cloudevents.io, JSON event format).

use serde::{Deserialize, Serialize};

/// One event. Delivered at least once: readers remember `id`, or the version in `data`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = BusEvent))]
pub struct BusEvent<Data = serde_json::Value> {
    pub specversion: String,
    pub id: String,
    /// `dormouse.server.created`
    #[serde(rename = "type")]
    pub kind: String,
    /// `/regions/fra`
    pub source: String,
    /// `acme/survival`; of an erasure the opaque subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// RFC 3339, UTC.
    pub time: String,
    pub datacontenttype: String,
    /// Extension attribute: whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Extension attribute: the event's place in the region's stream; given back as `after` it asks for what
    /// follows.
    pub position: u64,
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value))]
    pub data: Data,
}

/// `GET /v1/bus?…`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub struct BusFilter {
    /// Only what comes after this position [default: from the beginning]
    pub after: Option<u64>,
    /// Only these types, by their beginning: `dormouse.server.`
    #[serde(rename = "type")]
    pub kind: Option<String>,
    #[cfg_attr(feature = "openapi", param(minimum = 1, maximum = 500))]
    pub limit: Option<u32>,
}

/// An event that a service gave up on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeadLetter {
    /// The entry's id in the stream of dead letters.
    pub id: String,
    /// The service whose group gave up.
    pub group: String,
    pub reason: String,
    pub deliveries: u64,
    pub event: BusEvent,
}
