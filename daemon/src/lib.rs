//! The node agent: discover, observe, decide, act.

pub mod act;
pub mod adopt;
pub mod agent;
pub mod budget;
pub mod config;
pub mod control;
pub mod discover;
pub mod door;
pub mod evidence;
pub mod failpoint;
#[cfg(fuzzing)]
pub mod fuzz;
pub mod guard;
pub mod heap;
pub mod limits;
pub mod memory;
pub mod metrics;
pub mod netns;
pub mod pool;
pub mod preflight;
pub mod savings;
pub mod sleep;
pub mod socket;
pub mod stage;
pub mod undo;
