//! The node agent: discover, observe, decide, act.

pub mod limits;
pub mod memory;
