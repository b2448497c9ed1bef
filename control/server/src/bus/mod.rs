//! Events between services: out of the outbox in one order without gaps, to whoever reads.
//!
//! With Redis: a stream a region, one consumer group a service. Without: the same events by cursor and SSE. The outbox
//! is the truth in both; what Redis lost is sent again from it.

pub mod consume;
pub mod read;
pub mod sequence;
pub mod stream;
pub mod trim;
