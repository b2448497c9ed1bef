//! Checking tokens: PASETO v4.public (paseto.io; Ed25519, no choice of algorithm), the key's id in the footer.
//!
//! Whoever holds a region's public keys can tell what it signed: the region itself, other regions, gateways.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use pasetors::Public;
use pasetors::keys::AsymmetricPublicKey;
use pasetors::paserk::{FormatAsPaserk, Id};
use pasetors::token::UntrustedToken;
use pasetors::version4::{PublicToken, V4};
use serde::{Deserialize, Serialize};

use crate::registry::login::Role;

/// Clocks of two regions may differ by this much.
const LEEWAY: Duration = Duration::from_secs(5);
/// A longer token is nobody's.
const MOST_BYTES: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who: the id of a stored key, or the operator's name.
    pub sub: String,
    /// The region that it is for.
    pub aud: String,
    /// RFC 3339.
    pub exp: String,
    pub iat: String,
    pub role: Role,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

#[derive(Serialize, Deserialize)]
pub struct Footer {
    pub kid: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("it is no PASETO v4.public token of this control plane")]
    NotOurs,
    #[error("its key is not known here; a rotated key's tokens end with the key")]
    UnknownKey,
    #[error("it has expired: log in again")]
    Expired,
    #[error("it is for another region")]
    OtherRegion,
    #[error("signing failed")]
    Signing,
}

/// Whose tokens are believed, by the keys' ids (`k4.pid.…`).
#[derive(Clone, Debug, Default)]
pub struct PublicKeys(HashMap<String, AsymmetricPublicKey<V4>>);

impl PublicKeys {
    /// The `*.public` files of a folder, as a region's key folder has them. To be read again when keys are rotated.
    ///
    /// # Errors
    /// The folder can't be read, or a file holds no PASERK v4 public key.
    pub fn load(folder: &Path) -> io::Result<Self> {
        let mut keys = Self::default();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ending == "public") {
                let text = fs::read_to_string(&path)?;
                let key = AsymmetricPublicKey::try_from(text.trim())
                    .map_err(|_| io::Error::other(format!("{} holds no PASERK v4 key", path.display())))?;
                keys.add(key);
            }
        }
        Ok(keys)
    }

    /// Its id.
    pub fn add(&mut self, key: AsymmetricPublicKey<V4>) -> String {
        let mut id = String::new();
        // Writing to a String cannot fail.
        let _ = Id::from(&key).fmt(&mut id);
        self.0.insert(id.clone(), key);
        id
    }

    pub fn has(&self, id: &str) -> bool {
        self.0.contains_key(id)
    }

    /// The claims of a good token for a region, and the moment of its end, in milliseconds since 1970.
    ///
    /// # Errors
    /// [`TokenError`]: why nobody is to act on it.
    pub fn verify(&self, region: &str, token: &str) -> Result<(Claims, u64), TokenError> {
        if token.len() > MOST_BYTES {
            return Err(TokenError::NotOurs);
        }
        let untrusted = UntrustedToken::<Public, V4>::try_from(token).map_err(|_| TokenError::NotOurs)?;
        let footer: Footer =
            serde_json::from_slice(untrusted.untrusted_footer()).map_err(|_| TokenError::NotOurs)?;
        let key = self.0.get(&footer.kid).ok_or(TokenError::UnknownKey)?;
        let trusted = PublicToken::verify(key, &untrusted, Some(untrusted.untrusted_footer()), None)
            .map_err(|_| TokenError::NotOurs)?;
        let claims: Claims = serde_json::from_str(trusted.payload()).map_err(|_| TokenError::NotOurs)?;
        let end = humantime::parse_rfc3339(&claims.exp).map_err(|_| TokenError::NotOurs)?;
        let begin = humantime::parse_rfc3339(&claims.iat).map_err(|_| TokenError::NotOurs)?;
        let now = SystemTime::now();
        if now >= end {
            return Err(TokenError::Expired);
        }
        if begin > now + LEEWAY {
            return Err(TokenError::NotOurs);
        }
        if claims.aud != region {
            return Err(TokenError::OtherRegion);
        }
        let end = end.duration_since(UNIX_EPOCH).map_err(|_| TokenError::NotOurs)?;
        Ok((claims, u64::try_from(end.as_millis()).unwrap_or(u64::MAX)))
    }
}
