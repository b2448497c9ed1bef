//! Thresholds: what values they take, what the shipped games say, and which layer wins.

pub mod layers;
pub mod shipped;
pub mod value;
