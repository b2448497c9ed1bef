//! For gateways: a server's requests go straight to the region that owns it.
//!
//! Any region tells which one that is (`/v1/locate`), with a token that only that one accepts, for a minute. Both are
//! remembered as long as the token lives. A region that doesn't own the server answers 421: then it is asked itself, for
//! it knows better than what was remembered.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::{Method, StatusCode};
use serde::Serialize;

use crate::path;
use crate::registry::locate::Location;
use crate::remote::{Remote, RemoteError, Reply};

/// A token that ends within this is not used any more: the request has a way to go.
const MARGIN_MS: u64 = 5_000;
/// Places that are remembered at once; each is a few hundred bytes.
const MOST: usize = 10_000;
/// Regions that are asked for one request: the remembered one, the right one, and one that was right a moment ago.
const HOPS: usize = 3;

/// Where one caller's requests for one server go.
type Key = (String, String);

pub struct Gateway {
    home: Remote,
    authorities: Option<PathBuf>,
    places: Mutex<HashMap<Key, Location>>,
}

impl Gateway {
    /// `home`: the region that is asked first, without a token; `authorities`: who vouches for the others' certificates.
    pub fn new(home: Remote, authorities: Option<PathBuf>) -> Self {
        Self { home, authorities, places: Mutex::default() }
    }

    /// Asks the region that owns a server, in the name of a caller who has a token of the home region. The reply may be
    /// of any status but 421.
    ///
    /// # Errors
    /// No region can be reached, none knows the server, or they name each other: [`RemoteError`].
    pub async fn ask(
        &self,
        caller: &str,
        server: &str,
        method: &Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&impl Serialize>,
    ) -> Result<Reply, RemoteError> {
        let key = (caller.to_owned(), server.to_owned());
        let mut place = match self.remembered(&key) {
            Some(place) => place,
            None => self.locate(&key, &self.home.clone().with_token(caller)).await?,
        };
        let mut hop = 1;
        loop {
            let region = Remote::new(&place.url, self.authorities.as_deref())?.with_token(&*place.token);
            let reply = region.ask(method.clone(), path, headers, body).await;
            let reply = match reply {
                Ok(reply) => reply,
                Err(error) => {
                    // Perhaps it moved: the next one looks anew.
                    self.forget(&key);
                    return Err(error);
                }
            };
            if reply.status != StatusCode::MISDIRECTED_REQUEST {
                return Ok(reply);
            }
            self.forget(&key);
            if hop == HOPS {
                return Err(region.accepted(method, path, reply).map_or_else(
                    |error| error,
                    |_| region.strange(method, path, "a success that is misdirected".to_owned()),
                ));
            }
            place = self.locate(&key, &region).await?;
            hop += 1;
        }
    }

    async fn locate(&self, key: &Key, region: &Remote) -> Result<Location, RemoteError> {
        let place: Location = region.get(&format!("/v1/locate/{}", path::encode(&key.1))).await?;
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= MOST {
            let now = now_ms();
            places.retain(|_, place| place.expires_at_ms > now + MARGIN_MS);
            if places.len() >= MOST {
                places.clear();
            }
        }
        places.insert(key.clone(), place.clone());
        Ok(place)
    }

    fn remembered(&self, key: &Key) -> Option<Location> {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.get(key).filter(|place| place.expires_at_ms > now_ms() + MARGIN_MS).cloned()
    }

    fn forget(&self, key: &Key) {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
