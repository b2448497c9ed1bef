//! What the operator wrote: `dormoused.toml`, server files, profiles and overrides, read strictly and
//! resolved to [`Limits`](crate::limits::Limits).
//!
//! Pure: from a directory and a time to a result, so that a reload is the same call again. A file that is
//! wrong is an error of that file alone; its server stays unmanaged, which means awake.

mod error;
mod fetched;
mod hooks;
mod layers;
mod load;
mod node;
mod overrides;
mod profile;
mod reader;
mod rules;
mod server;
#[cfg(test)]
mod tests;
mod thresholds;
mod value;
mod window;

pub use error::{ConfigError, Place};
pub use hooks::{Action, Hook, Hooks, Rcon};
pub use layers::{Explained, Layer, LayerPatch, LayerValue, explain, merge};
pub use load::{Loaded, load};
pub use node::{Control, Node, ProfilesFrom};
#[cfg(fuzzing)]
pub use overrides::fuzz as fuzz_overrides;
pub use overrides::{Override, get, set, unset};
pub use profile::{Profile, Ready, Save, SaveCommand, Verified, Watchdog, WatchdogCheck};
pub use server::{Assertions, Server, ServerFile, ServerPort};
pub use thresholds::{KEYS, Patch, built_in};
pub use value::{PortSpec, Transport};
