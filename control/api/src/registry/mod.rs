//! The control plane's `/v1`: what a region knows, and who may ask.
//!
//! A server's name is `TENANT/NAME`, the same as on its node, and is one percent-encoded segment of an address.
//! Every row carries a rising `version`, which is also its ETag.

pub mod bus;
pub mod erasure;
pub mod locate;
pub mod login;
pub mod node;
pub mod server;
pub mod tenant;
pub mod threshold;
pub mod usage;

use serde::{Deserialize, Serialize};

/// The largest page of a list; also what a list gives when nobody says how many.
pub const PAGE_MAX: u32 = 500;
pub const PAGE_DEFAULT: u32 = 100;

/// One page of a list, in the order of names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Given back as `cursor` it asks for what follows; `None`: that was all.
    pub next: Option<String>,
}
