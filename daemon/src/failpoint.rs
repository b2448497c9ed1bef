//! The steps between which a test may come: by a login, by SIGKILL, or by SIGSTOP (suites `kill` and `race`).
//! Every place between two calls that change something has a name here; nothing at all is done in a release
//! build.

/// Every step of daemon, guard and `off`. A test holds this list to the source, and the suite `kill` holds
/// itself to this list.
pub const STEPS: &[&str] = &[
    // The door is loaded and hung.
    "door-loaded",
    "door-configured",
    "attach-logged",
    "attach-linked",
    "attach-pinned",
    "attach-done",
    "watched",
    "path-probed",
    "cgroup-logged",
    "cgroup-linked",
    "cgroup-pinned",
    "cgroup-replaced",
    "adopt-settled",
    "bring-up-done",
    // Maps of another layout are left behind.
    "layout-woken",
    "layout-unpinned",
    // Into the doze.
    "store-written",
    "doze-begun",
    "doze-signal",
    "doze-logged",
    "freeze-written",
    "doze-frozen",
    "doze-looked",
    "doze-parked",
    "doze-done",
    "doze-off-thawed",
    "throttle-logged",
    "throttle-written",
    // A query's short thaw.
    "query-thawed",
    "query-drained",
    "query-frozen",
    "query-parked",
    // Deep.
    "deep-begun",
    "swap-limit-logged",
    "swap-limit-written",
    "deep-done",
    // Out of the doze.
    "ring-read",
    "wake-begun",
    "wake-given",
    "wake-thawed",
    "wake-draining",
    "wake-replayed",
    "wake-open",
    "wake-done",
    "clerk-begun",
    "clerk-done",
    // The door comes off.
    "unhang-unwatched",
    "unhang-detached",
    "take-down-done",
    // Putting back, by whoever does it.
    "undo-put-back",
    "undo-marked",
    // `off` and `on`.
    "off-marked",
    "off-played",
    "off-unpinned",
    "off-seen",
    "on-unmarked",
    "on-pinned",
    "stop-begun",
    // The guard.
    "guard-stale",
    "guard-wakes",
];

/// Names the socket that a test listens on.
pub const SOCKET: &str = "DORMOUSE_STEPS";

/// Tells the test of a step, and waits until it closes the connection. Without a test this is one look at the
/// environment.
#[cfg(debug_assertions)]
pub fn at(step: &str) {
    use std::{
        io::{Read as _, Write as _},
        os::unix::net::UnixStream,
        sync::OnceLock,
    };

    static LISTENER: OnceLock<Option<std::ffi::OsString>> = OnceLock::new();
    debug_assert!(STEPS.contains(&step), "{step} is missing in STEPS");
    let Some(listener) = LISTENER.get_or_init(|| std::env::var_os(SOCKET)) else { return };
    // A test that is over has no wishes.
    if let Ok(mut stream) = UnixStream::connect(listener)
        && stream.write_all(step.as_bytes()).is_ok()
        && stream.shutdown(std::net::Shutdown::Write).is_ok()
    {
        let _ = stream.read(&mut [0]);
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
pub fn at(_step: &str) {}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::Path};

    use super::STEPS;

    fn count(folder: &Path, found: &mut BTreeMap<String, u32>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                count(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                for after in text.split(concat!("failpoint::", "at(\"")).skip(1) {
                    *found.entry(after.split('"').next().unwrap().to_owned()).or_default() += 1;
                }
            }
        }
    }

    /// A step that is only in the source is one that no test comes to; a name that stands twice hides one.
    #[test]
    fn the_list_and_the_source_name_the_same_steps_once() {
        let mut found = BTreeMap::new();
        count(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        let wanted: BTreeMap<String, u32> = STEPS.iter().map(|step| ((*step).to_owned(), 1)).collect();
        assert_eq!(found, wanted);
    }
}
