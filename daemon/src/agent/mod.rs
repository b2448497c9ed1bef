//! The agent.

mod bring_up;
pub(crate) mod clock;
mod journal;
