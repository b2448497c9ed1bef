//! The control plane of one region: registry, index, events, routing (design §6).
//!
//! `dormouse-control` runs on one machine with a SQLite file, or with PostgreSQL and Redis: chosen by URL, the same
//! code on both.
#![forbid(unsafe_code)]

pub mod app;
pub mod auth;
pub mod bus;
pub mod clock;
pub mod config;
pub mod deliver;
pub mod erasure;
pub mod failpoint;
pub mod http;
pub mod index;
pub mod metrics;
pub mod names;
pub mod outbox;
pub mod registry;
pub mod serve;
pub mod store;
pub mod thresholds;

use std::fmt::Write;

/// Small letters, two a byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
