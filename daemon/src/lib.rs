//! The node agent: discover, observe, decide, act.

pub mod config;
pub mod limits;
