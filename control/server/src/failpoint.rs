//! Places at which a test lets the program die, as by SIGKILL. Nothing at all in a release build.
//!
//! `DORMOUSE_DIE_AT=PLACE` dies at [`at`] that place; `PLACE+N` before the N-th statement, the commit included, that the
//! same task gives to the database after [`arm`] of that place, until [`disarm`]. So a test need not know how many there are.

#[cfg(debug_assertions)]
mod armed {
    use std::sync::{LazyLock, Mutex, PoisonError};

    use tokio::task::{Id, try_id};

    static WANTED: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("DORMOUSE_DIE_AT").ok());
    /// Whose statements are counted, and how many are left.
    static ARMED: Mutex<Option<(Id, u32)>> = Mutex::new(None);

    fn die() {
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }

    pub fn at(place: &str) {
        if WANTED.as_deref() == Some(place) {
            die();
        }
    }

    pub fn arm(place: &str) {
        let wanted = WANTED.as_deref().and_then(|wanted| wanted.split_once('+'));
        let Some((_, count)) = wanted.filter(|(wanted, _)| *wanted == place) else { return };
        let armed = try_id().and_then(|task| Some((task, count.parse().ok()?)));
        *ARMED.lock().unwrap_or_else(PoisonError::into_inner) = armed;
    }

    pub fn disarm() {
        *ARMED.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub fn statement() {
        if WANTED.is_none() {
            return;
        }
        let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *armed {
            Some((task, left)) if try_id() == Some(*task) => {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    die();
                }
            }
            _ => {}
        }
    }
}

#[cfg(debug_assertions)]
pub use armed::{arm, at, disarm, statement};

#[cfg(not(debug_assertions))]
mod disarmed {
    #[inline(always)]
    pub fn at(_place: &str) {}

    #[inline(always)]
    pub fn arm(_place: &str) {}

    #[inline(always)]
    pub fn disarm() {}

    #[inline(always)]
    pub fn statement() {}
}

#[cfg(not(debug_assertions))]
pub use disarmed::{arm, at, disarm, statement};
