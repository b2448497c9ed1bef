//! What sleep was worth: hours in each stage and memory handed back, a server and an hour at a time.
//!
//! The agent tells [`Books`] what it sees. Their ledger turns that into rows, the store keeps the rows over restarts,
//! `sum` adds them up for a period. What nobody saw is not in the books, and counts as nothing saved.

mod books;
mod ledger;
mod recent;
mod row;
mod store;
mod sum;

pub use books::Books;
pub use ledger::{Seen, Standing};
pub use recent::Wear;
pub use store::StoreError;

/// The share of its anonymous memory that a server in mode observe is taken to give back once it would be deep: the
/// least that a page-out has to reach (design §9, "memory handed back").
pub const ESTIMATED_SHARE: f64 = 0.9;
