//! The node agent: discover, observe, decide, act.

pub mod door;
pub mod limits;
