//! Places at which a test lets the program die, as by SIGKILL: between any two statements that change something.

/// Dies here if `DORMOUSE_DIE_AT` names this place. Nothing at all in a release build.
#[cfg(debug_assertions)]
pub fn at(place: &str) {
    use std::sync::OnceLock;

    static WANTED: OnceLock<Option<String>> = OnceLock::new();
    if WANTED.get_or_init(|| std::env::var("DORMOUSE_DIE_AT").ok()).as_deref() == Some(place) {
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
}

#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn at(_place: &str) {}
