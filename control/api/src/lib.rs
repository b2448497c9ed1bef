//! What the node's socket, the control plane and their callers say to each other: JSON over HTTP.
//!
//! Only words, no behaviour: every type is a plain value. Units are in the names (`_bytes`, `_ms`, `_ns`).
//! A field that ends in `_at_ms` is a moment, in milliseconds since 1970-01-01 UTC; every other `_ms` is a
//! length of time. Requests refuse fields they don't know; answers may grow fields, so readers ignore them.
#![forbid(unsafe_code)]

pub mod adopt;
#[cfg(feature = "client")]
pub mod client;
pub mod command;
pub mod event;
pub mod exposition;
#[cfg(feature = "gateway")]
pub mod gateway;
pub mod path;
pub mod preflight;
pub mod problem;
pub mod profile;
pub mod registry;
#[cfg(feature = "remote")]
pub mod remote;
pub mod savings;
pub mod shipped;
pub mod status;
#[cfg(feature = "token")]
pub mod token;
pub mod why;

pub use problem::{Code, Problem};

/// Where the daemon listens when nobody says otherwise.
pub const SOCKET: &str = "/run/dormouse/dormouse.sock";
