//! Deep sleep's memory: how fast it goes out and comes back, and what the node gets.

pub mod deep_join;
mod disk;
pub mod handback;
pub mod jvm_gc;
mod node;
pub mod page_out;
mod sleeper;
pub mod storm_deep;
pub mod swap_in;
mod weight;
