//! Parses packets and tells players from queries, probes and noise.
//!
//! `no_std`, no allocation, no panic: the same code runs in the kernel and in host tests. The kernel's
//! verifier follows every path, so loops have small constant bounds and every index is masked or checked.
#![no_std]
#![forbid(unsafe_code)]
#![allow(
    clippy::inline_always,
    reason = "a call in the kernel costs a frame, and small paths verify faster in one piece"
)]

pub mod class;
pub mod headers;
pub mod luanti;
pub mod minecraft;
pub mod probe;
mod proxy;
pub mod teeworlds;
pub mod window;

#[cfg(test)]
extern crate std;

pub use class::{Class, Game, classify};
pub use window::Window;
