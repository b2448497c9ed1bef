//! The registry's tables: one module a kind of thing. Each function runs in its caller's transaction; who may call
//! it is decided before (auth/caller.rs).

mod checked;
pub mod commands;
pub mod keys;
pub mod nodes;
pub mod profiles;
pub mod reports;
pub mod servers;
pub mod tenants;
pub mod usage;

use dormouse_api::registry::{PAGE_DEFAULT, PAGE_MAX, Page};
use dormouse_api::{Code, Problem};

/// How many rows a page has.
pub fn page_size(asked: Option<u32>) -> Result<u32, Problem> {
    let size = asked.unwrap_or(PAGE_DEFAULT);
    if (1..=PAGE_MAX).contains(&size) {
        return Ok(size);
    }
    Err(Problem::bad_field("limit", format!("limit is 1 to {PAGE_MAX}, not {size}")))
}

/// A page out of one row more than it holds: the last one only says that there is more.
pub fn page<T>(mut items: Vec<T>, size: u32, name: impl Fn(&T) -> String) -> Page<T> {
    let more = items.len() > size as usize;
    items.truncate(size as usize);
    Page { next: items.last().filter(|_| more).map(name), items }
}

/// The version that a change was made on must be the one that the asker saw.
pub fn matches(expected: Option<u64>, found: u64) -> Result<(), Problem> {
    match expected {
        Some(expected) if expected != found => {
            let detail = format!("it is at version {found}, If-Match says {expected}");
            Err(Problem::new(Code::Changed, detail).with_remedy("read it again, then repeat the change"))
        }
        _ => Ok(()),
    }
}
