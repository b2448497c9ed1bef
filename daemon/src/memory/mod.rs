//! Deep sleep's memory work: page out what a sleeper holds, hand it back to the node, and bring back what it
//! needs when it wakes (design §4). Everything here blocks: it runs on threads of its own, never on a tokio
//! worker.
//!
//! The way down is [`page_out`]: [`regions`] says what may be moved, [`pagemap`] what is there, [`advise`]
//! moves it, `sweep` empties the swap cache, [`judge`] measures what the node really got. The way up is
//! [`prefetch`], guided by the [`working_set`].

pub mod advise;
mod error;
pub mod group;
pub mod judge;
pub mod page_out;
pub mod pagemap;
mod plan;
pub mod prefetch;
pub mod ranges;
pub mod regions;
pub mod swap;
mod sweep;
pub(crate) mod sys;
#[cfg(test)]
mod tests;
pub mod working_set;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use error::{Error, Result};

/// Stops a page-out or a prefetch from another thread: looked at between steps of 2 MiB, so that a knock
/// interrupts within milliseconds.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
