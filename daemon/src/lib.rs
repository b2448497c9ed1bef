//! The node agent: discover, observe, decide, act.

pub mod act;
pub mod guard;
pub mod limits;
pub mod undo;
