//! Deep sleep's memory work: page out what a sleeper holds, hand it back to the node, and bring back what it
//! needs when it wakes (design §4). Everything here blocks: it runs on threads of its own, never on a tokio
//! worker.
//!
//! The way down is [`page_out`]: [`regions`] says what may be moved, [`pagemap`] what is there, [`advise`]
//! moves it, `sweep` empties the swap cache, [`judge`] measures what the node really got. The way up is
//! [`prefetch`], guided by the [`working_set`].

pub mod advise;
pub mod cold;
mod error;
pub mod group;
pub mod judge;
pub mod page_out;
pub mod pagemap;
mod plan;
pub mod prefetch;
pub mod ranges;
pub mod refill;
pub mod regions;
mod stored_sets;
pub mod swap;
mod sweep;
pub(crate) mod sys;
#[cfg(test)]
mod tests;
pub mod working_set;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

pub use error::{Error, Result};

/// Stops a page-out or a prefetch from another thread: looked at between steps of 2 MiB, so that a knock
/// interrupts within milliseconds.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    flag: Arc<AtomicBool>,
    at: Option<Instant>,
}

impl Cancel {
    /// Stops by itself at that time.
    pub fn at(time: Instant) -> Self {
        Self { at: Some(time), ..Self::default() }
    }

    pub fn cancel(&self) {
        self.flag.store(true, Ordering::Release);
    }

    pub fn is_cancelled(&self) -> bool {
        self.flag.load(Ordering::Acquire) || self.at.is_some_and(|time| Instant::now() >= time)
    }
}
