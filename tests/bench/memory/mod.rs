//! Deep sleep's memory: how fast it goes out and comes back, and what the node gets.

mod disk;
mod sleeper;
pub mod swap_in;
