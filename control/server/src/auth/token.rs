//! Tokens: PASETO v4.public; what checks them is in `dormouse_api::token`, for gateways too.

use std::time::Duration;

use dormouse_api::registry::login::Role;
use dormouse_api::token::Footer;
pub use dormouse_api::token::{Claims, TokenError};
use pasetors::version4::PublicToken;

use super::keys::Keys;
use crate::clock;

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
        let (claims, verified_end) = keys.public.verify("fra", &token).unwrap();
        assert_eq!(
            (claims.sub.as_str(), claims.tenant.as_deref(), verified_end),
            ("anna", Some("acme"), end)
        );
        assert_eq!(keys.public.verify("lon", &token).unwrap_err(), TokenError::OtherRegion);
        assert_eq!(
            Keys::generate().unwrap().public.verify("fra", &token).unwrap_err(),
            TokenError::UnknownKey
        );
        let (expired, _) = sign(&keys, &grant(Duration::ZERO)).unwrap();
        assert_eq!(keys.public.verify("fra", &expired).unwrap_err(), TokenError::Expired);
    }

    #[test]
    fn a_changed_letter_ends_a_token() {
        let keys = Keys::generate().unwrap();
        let (token, _) = sign(&keys, &grant(Duration::from_mins(1))).unwrap();
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(keys.public.verify("fra", &changed).is_err(), "letter {at}");
        }
    }
}
