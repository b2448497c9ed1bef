//! The keys that sign tokens: a folder of files in PASERK form (`NAME.secret`, `NAME.public`).
//!
//! Rotation without downtime: add a key (`dormouse-control key new`), and every instance that shares the folder knows
//! it within [`RELOAD`]; after [`SETTLE`] the newest key signs. The old one goes on verifying until its file is
//! removed. Another region's tokens are accepted once its `.public` file is here.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use dormouse_api::token::PublicKeys;
use pasetors::keys::{AsymmetricKeyPair, AsymmetricPublicKey, AsymmetricSecretKey, Generate};
use pasetors::paserk::{FormatAsPaserk, Id};
use pasetors::version4::V4;

pub const RELOAD: Duration = Duration::from_secs(10);
/// Longer than any instance takes to see a new key.
pub const SETTLE: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read or write the key {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{0} holds no PASERK v4 key; `dormouse-control key new` makes one")]
    NotAKey(PathBuf),
    #[error("no *.secret in {0}: `dormouse-control key new` makes one")]
    NoSecret(PathBuf),
    #[error("the system gave no random numbers")]
    Random,
}

pub struct Signing {
    pub id: String,
    pub secret: AsymmetricSecretKey<V4>,
}

pub struct Keys {
    pub signing: Signing,
    pub public: PublicKeys,
}

impl Keys {
    /// One key that is kept nowhere.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = AsymmetricKeyPair::<V4>::generate().map_err(|_| KeyError::Random)?;
        let mut public = PublicKeys::default();
        let id = public.add(pair.public);
        Ok(Self { signing: Signing { id, secret: pair.secret }, public })
    }

    fn load(folder: &Path, now: SystemTime) -> Result<Self, KeyError> {
        let mut public = PublicKeys::default();
        let mut secrets: Vec<(SystemTime, PathBuf, AsymmetricSecretKey<V4>)> = Vec::new();
        for path in files(folder)? {
            match path.extension().and_then(|ending| ending.to_str()) {
                Some("public") => {
                    let key = AsymmetricPublicKey::<V4>::try_from(read(&path)?.as_str())
                        .map_err(|_| KeyError::NotAKey(path.clone()))?;
                    public.add(key);
                }
                Some("secret") => {
                    let key = AsymmetricSecretKey::<V4>::try_from(read(&path)?.as_str())
                        .map_err(|_| KeyError::NotAKey(path.clone()))?;
                    let of = |source| KeyError::File { path: path.clone(), source };
                    let made = fs::metadata(&path).and_then(|data| data.modified()).map_err(of)?;
                    let own = AsymmetricPublicKey::<V4>::try_from(&key)
                        .map_err(|_| KeyError::NotAKey(path.clone()))?;
                    public.add(own);
                    secrets.push((made, path, key));
                }
                _ => {}
            }
        }
        secrets.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
        // The newest that everybody has had the time to see; a folder of new keys only: the oldest of them.
        let settled = |made: SystemTime| now.duration_since(made).is_ok_and(|age| age >= SETTLE);
        let chosen = secrets.iter().rposition(|(made, ..)| settled(*made)).unwrap_or(0);
        if secrets.is_empty() {
            return Err(KeyError::NoSecret(folder.to_owned()));
        }
        let (_, path, secret) = secrets.swap_remove(chosen);
        let own =
            AsymmetricPublicKey::<V4>::try_from(&secret).map_err(|_| KeyError::NotAKey(path.clone()))?;
        Ok(Self { signing: Signing { id: id_of(&own), secret }, public })
    }
}

/// The folder as it was read last.
pub struct KeyRing {
    folder: PathBuf,
    keys: RwLock<Arc<Keys>>,
}

impl KeyRing {
    /// Reads the folder; an empty one gets its first key.
    pub fn open(folder: &Path) -> Result<Self, KeyError> {
        fs::create_dir_all(folder).map_err(|source| KeyError::File { path: folder.to_owned(), source })?;
        let has_secret = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "secret");
        if !files(folder)?.iter().any(has_secret) {
            create(folder)?;
        }
        let keys = Keys::load(folder, SystemTime::now())?;
        Ok(Self { folder: folder.to_owned(), keys: RwLock::new(Arc::new(keys)) })
    }

    pub fn keys(&self) -> Arc<Keys> {
        self.keys.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Reads the folder again. A folder that cannot be read leaves the keys as they are.
    pub fn reload(&self) -> Result<(), KeyError> {
        let keys = Arc::new(Keys::load(&self.folder, SystemTime::now())?);
        *self.keys.write().unwrap_or_else(std::sync::PoisonError::into_inner) = keys;
        Ok(())
    }
}

/// Makes a key in the folder, readable by its owner only; its id.
pub fn create(folder: &Path) -> Result<String, KeyError> {
    let pair = AsymmetricKeyPair::<V4>::generate().map_err(|_| KeyError::Random)?;
    let id = id_of(&pair.public);
    let name = format!("{}-{}", crate::clock::now_ms(), id.get(id.len() - 8..).unwrap_or("key"));
    // The public half first: nobody signs with a key that can't be verified.
    write_new(&folder.join(format!("{name}.public")), 0o644, &paserk(&pair.public))?;
    write_new(&folder.join(format!("{name}.secret")), 0o600, &paserk(&pair.secret))?;
    Ok(id)
}

fn write_new(path: &Path, mode: u32, text: &str) -> Result<(), KeyError> {
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        writeln!(file, "{text}")?;
        file.sync_all()
    };
    write().map_err(|source| KeyError::File { path: path.to_owned(), source })
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, KeyError> {
    let list = || -> io::Result<Vec<PathBuf>> {
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect()
    };
    list().map_err(|source| KeyError::File { path: folder.to_owned(), source })
}

fn read(path: &Path) -> Result<String, KeyError> {
    let text = fs::read_to_string(path).map_err(|source| KeyError::File { path: path.to_owned(), source })?;
    Ok(text.trim().to_owned())
}

fn paserk(key: &impl FormatAsPaserk) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = key.fmt(&mut text);
    text
}

fn id_of(key: &AsymmetricPublicKey<V4>) -> String {
    paserk(&Id::from(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_signs_when_all_have_seen_it_and_the_old_one_still_verifies() {
        let folder = tempfile::tempdir().unwrap();
        let first = KeyRing::open(folder.path()).unwrap().keys().signing.id.clone();
        let second = create(folder.path()).unwrap();
        let now = Keys::load(folder.path(), SystemTime::now()).unwrap();
        assert_eq!(now.signing.id, first);
        assert!(now.public.has(&second));
        let later = Keys::load(folder.path(), SystemTime::now() + SETTLE).unwrap();
        assert_eq!(later.signing.id, second);
        assert!(later.public.has(&first));
    }
}
