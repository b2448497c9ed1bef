//! Tokens: PASETO v4.public (paseto.io; Ed25519, no choice of algorithm), the key's id in the footer.

use std::time::Duration;

use dormouse_api::registry::login::Role;
use pasetors::Public;
use pasetors::token::UntrustedToken;
use pasetors::version4::{PublicToken, V4};
use serde::{Deserialize, Serialize};

use super::keys::Keys;
use crate::clock;

/// Clocks of two regions may differ by this much.
const LEEWAY_MS: u64 = 5_000;
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
struct Footer {
    kid: String,
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

/// What a token is made of.
#[derive(Clone, Debug)]
pub struct Grant<'a> {
    pub subject: &'a str,
    pub region: &'a str,
    pub role: Role,
    pub tenant: Option<&'a str>,
    pub node: Option<&'a str>,
    pub lives: Duration,
}

/// A signed token and the moment of its end.
pub fn sign(keys: &Keys, grant: &Grant<'_>) -> Result<(String, u64), TokenError> {
    let now = clock::now_ms();
    let end = now + clock::millis(grant.lives);
    let claims = Claims {
        sub: grant.subject.to_owned(),
        aud: grant.region.to_owned(),
        exp: clock::rfc3339(end),
        iat: clock::rfc3339(now),
        role: grant.role,
        tenant: grant.tenant.map(ToOwned::to_owned),
        node: grant.node.map(ToOwned::to_owned),
    };
    let footer = Footer { kid: keys.signing.id.clone() };
    let (Ok(message), Ok(footer)) = (serde_json::to_vec(&claims), serde_json::to_vec(&footer)) else {
        return Err(TokenError::Signing);
    };
    let token = PublicToken::sign(&keys.signing.secret, &message, Some(&footer), None)
        .map_err(|_| TokenError::Signing)?;
    Ok((token, end))
}

/// The claims of a good token, and the moment of its end.
pub fn verify(keys: &Keys, region: &str, token: &str) -> Result<(Claims, u64), TokenError> {
    if token.len() > MOST_BYTES {
        return Err(TokenError::NotOurs);
    }
    let untrusted = UntrustedToken::<Public, V4>::try_from(token).map_err(|_| TokenError::NotOurs)?;
    let footer: Footer =
        serde_json::from_slice(untrusted.untrusted_footer()).map_err(|_| TokenError::NotOurs)?;
    let key = keys.public.get(&footer.kid).ok_or(TokenError::UnknownKey)?;
    let trusted = PublicToken::verify(key, &untrusted, Some(untrusted.untrusted_footer()), None)
        .map_err(|_| TokenError::NotOurs)?;
    let claims: Claims = serde_json::from_str(trusted.payload()).map_err(|_| TokenError::NotOurs)?;
    let end = clock::parse_rfc3339(&claims.exp).ok_or(TokenError::NotOurs)?;
    let begin = clock::parse_rfc3339(&claims.iat).ok_or(TokenError::NotOurs)?;
    let now = clock::now_ms();
    if now >= end {
        return Err(TokenError::Expired);
    }
    if begin > now + LEEWAY_MS {
        return Err(TokenError::NotOurs);
    }
    if claims.aud != region {
        return Err(TokenError::OtherRegion);
    }
    Ok((claims, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(lives: Duration) -> Grant<'static> {
        Grant { subject: "anna", region: "fra", role: Role::Tenant, tenant: Some("acme"), node: None, lives }
    }

    #[test]
    fn a_token_is_for_its_region_its_time_and_its_key() {
        let keys = Keys::generate().unwrap();
        let (token, end) = sign(&keys, &grant(Duration::from_mins(1))).unwrap();
        let (claims, verified_end) = verify(&keys, "fra", &token).unwrap();
        assert_eq!(
            (claims.sub.as_str(), claims.tenant.as_deref(), verified_end),
            ("anna", Some("acme"), end)
        );
        assert_eq!(verify(&keys, "lon", &token).unwrap_err(), TokenError::OtherRegion);
        assert_eq!(verify(&Keys::generate().unwrap(), "fra", &token).unwrap_err(), TokenError::UnknownKey);
        let (expired, _) = sign(&keys, &grant(Duration::ZERO)).unwrap();
        assert_eq!(verify(&keys, "fra", &expired).unwrap_err(), TokenError::Expired);
    }

    #[test]
    fn a_changed_letter_ends_a_token() {
        let keys = Keys::generate().unwrap();
        let (token, _) = sign(&keys, &grant(Duration::from_mins(1))).unwrap();
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(verify(&keys, "fra", &changed).is_err(), "letter {at}");
        }
    }
}
