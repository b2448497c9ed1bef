//! Stored secrets: argon2id (RFC 9106) in PHC form.

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use tokio::sync::Semaphore;

/// Each takes 19 MiB and a core for some 20 ms (argon2's defaults, OWASP's first choice for argon2id).
static AT_ONCE: Semaphore = Semaphore::const_new(2);

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("hashing a secret failed")]
pub struct HashingFailed;

/// 244 random bits, as text: two version 4 UUIDs (RFC 9562) without their dashes.
pub fn generate() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}

pub async fn hash(secret: String) -> Result<String, HashingFailed> {
    apart(move || {
        let hash = Argon2::default().hash_password(secret.as_bytes()).map_err(|_| HashingFailed)?;
        Ok(hash.to_string())
    })
    .await?
}

/// Against `None` it takes as long and is wrong: the time tells nobody which keys exist.
pub async fn verify(secret: String, hash: Option<String>) -> Result<bool, HashingFailed> {
    let Some(hash) = hash else {
        self::hash(secret).await?;
        return Ok(false);
    };
    apart(move || {
        PasswordHash::new(&hash)
            .is_ok_and(|hash| Argon2::default().verify_password(secret.as_bytes(), &hash).is_ok())
    })
    .await
}

async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, HashingFailed> {
    let _turn = AT_ONCE.acquire().await.map_err(|_| HashingFailed)?;
    tokio::task::spawn_blocking(work).await.map_err(|_| HashingFailed)
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn a_secret_is_known_by_its_hash_only() {
        let secret = super::generate();
        let hash = super::hash(secret.clone()).await.unwrap();
        assert!(hash.starts_with("$argon2id$") && !hash.contains(&secret));
        assert!(super::verify(secret, Some(hash.clone())).await.unwrap());
        assert!(!super::verify("wrong".to_owned(), Some(hash)).await.unwrap());
        assert!(!super::verify("wrong".to_owned(), None).await.unwrap());
    }
}
