//! Tokens that were found good: a signature is checked once, not at every request.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use sha2::{Digest, Sha256};

use super::Caller;

/// A caller is some 200 bytes: 2 MiB at the most.
const MOST: usize = 8192;

/// Kept by the token's hash, so that a memory image holds no tokens.
#[derive(Default)]
pub struct TokenCache(RwLock<HashMap<[u8; 32], Entry>>);

struct Entry {
    caller: Arc<Caller>,
    until_ms: u64,
}

impl TokenCache {
    pub fn key(token: &str) -> [u8; 32] {
        Sha256::digest(token.as_bytes()).into()
    }

    pub fn get(&self, key: &[u8; 32], now_ms: u64) -> Option<Arc<Caller>> {
        let entries = self.0.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(key).filter(|entry| now_ms < entry.until_ms).map(|entry| entry.caller.clone())
    }

    /// A full cache forgets what has expired, and if that is not enough, everything.
    pub fn put(&self, key: [u8; 32], caller: Arc<Caller>, until_ms: u64, now_ms: u64) {
        let mut entries = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= MOST {
            entries.retain(|_, entry| now_ms < entry.until_ms);
            if entries.len() >= MOST {
                entries.clear();
            }
        }
        entries.insert(key, Entry { caller, until_ms });
    }

    /// After the keys changed: a removed key's tokens end now.
    pub fn clear(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
