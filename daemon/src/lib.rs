//! The node agent: discover, observe, decide, act.

pub mod discover;
pub mod limits;
pub mod netns;
