//! What tests do to a daemon, in debug builds only: let it die between any two steps that change something, as by
//! SIGKILL, and keep it from looking at its servers.

/// Dies here if `DORMOUSE_DIE_AT` names this place. Nothing at all in a release build.
#[cfg(debug_assertions)]
pub fn at(place: &str) {
    use std::sync::OnceLock;

    static WANTED: OnceLock<Option<String>> = OnceLock::new();
    if WANTED.get_or_init(|| std::env::var("DORMOUSE_DIE_AT").ok()).as_deref() == Some(place) {
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
}

/// How often servers are looked at without a reason, if `DORMOUSE_LOOK_EVERY` says so (seconds): a test of what
/// is noticed at once must not be passed by the next look.
#[cfg(debug_assertions)]
pub fn look_every() -> Option<std::time::Duration> {
    use std::sync::OnceLock;

    static WANTED: OnceLock<Option<u64>> = OnceLock::new();
    let wanted =
        WANTED.get_or_init(|| std::env::var("DORMOUSE_LOOK_EVERY").ok().and_then(|text| text.parse().ok()));
    wanted.map(std::time::Duration::from_secs)
}

#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn look_every() -> Option<std::time::Duration> {
    None
}

#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn at(_place: &str) {}
