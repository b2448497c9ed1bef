//! The node agent: discover, observe, decide, act.

pub mod act;
pub mod door;
pub mod limits;
pub mod sleep;
pub mod undo;
pub mod discover;
pub mod limits;
pub mod netns;
pub mod stage;
