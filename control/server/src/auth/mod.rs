//! Who asks, and what they may see.

pub mod cache;
pub mod caller;
pub mod keys;
pub mod rate;
pub mod secret;
pub mod token;

pub use caller::Caller;
