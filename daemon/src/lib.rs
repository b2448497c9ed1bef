//! The node agent: discover, observe, decide, act.

pub mod act;
pub mod discover;
pub mod door;
pub mod guard;
pub mod config;
pub mod limits;
pub mod netns;
pub mod sleep;
pub mod stage;
pub mod undo;
pub mod socket;
