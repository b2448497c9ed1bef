//! The real program over HTTP, on SQLite and on PostgreSQL, with and without Redis.

mod away;
mod bus;
mod crud;
mod erasure;
mod index;
mod isolation;
mod kill;
mod limits;
mod metrics;
mod nodes;
mod schema;
mod start;
mod support;
