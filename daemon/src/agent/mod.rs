//! The agent.

mod bring_up;
mod clock;
mod journal;
