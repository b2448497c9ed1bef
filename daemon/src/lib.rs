//! The node agent: discover, observe, decide, act.

pub mod act;
pub mod agent;
pub mod config;
pub mod discover;
pub mod door;
mod failpoint;
pub mod guard;
pub mod limits;
pub mod memory;
pub mod netns;
pub mod sleep;
pub mod socket;
pub mod stage;
pub mod undo;
