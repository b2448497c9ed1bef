use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::super::*;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn after(seconds: u64) -> SystemTime {
    NOW + Duration::from_secs(seconds)
}

fn entry(server: &str, key: &str, typed: &str, until: u64) -> Override {
    Override::new(server, key, typed, after(until), None, NOW).unwrap()
}

fn file() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state/overrides.toml");
    (dir, path)
}

#[test]
fn set_get_unset() {
    let (_dir, path) = file();
    assert_eq!(get(&path, NOW).unwrap(), []);
    let first = entry("acme/a", "doze_after", "5m", 60);
    let second = entry("acme/a", "windows", "[\"fri 18:00-23:00\"]", 90);
    set(&path, first.clone(), NOW).unwrap();
    set(&path, second.clone(), NOW).unwrap();
    assert_eq!(get(&path, NOW).unwrap(), [first, second.clone()]);

    let changed = entry("acme/a", "doze_after", "7m", 60);
    set(&path, changed.clone(), NOW).unwrap();
    assert_eq!(get(&path, NOW).unwrap(), [second.clone(), changed]);

    assert!(unset(&path, "acme/a", "doze_after", NOW).unwrap());
    assert!(!unset(&path, "acme/a", "doze_after", NOW).unwrap());
    assert_eq!(get(&path, NOW).unwrap(), [second]);
}

#[test]
fn what_has_ended_does_not_hold_and_is_dropped_by_the_next_write() {
    let (_dir, path) = file();
    set(&path, entry("a", "floor", "awake", 10), NOW).unwrap();
    assert_eq!(get(&path, after(10)).unwrap(), []);
    set(&path, entry("b", "floor", "awake", 99), after(10)).unwrap();
    assert!(!fs::read_to_string(&path).unwrap().contains("\"a\""));
}

#[test]
fn a_file_that_cannot_be_read_is_not_overwritten() {
    let (_dir, path) = file();
    fs::create_dir(path.parent().unwrap()).unwrap();
    fs::write(&path, "by hand").unwrap();
    set(&path, entry("a", "floor", "awake", 10), NOW).unwrap_err();
    assert_eq!(fs::read_to_string(&path).unwrap(), "by hand");
}

#[test]
fn only_the_file_itself_is_left_behind() {
    let (_dir, path) = file();
    set(&path, entry("a", "floor", "awake", 10), NOW).unwrap();
    let names: Vec<_> =
        fs::read_dir(path.parent().unwrap()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(names, ["overrides.toml"]);
}

#[test]
fn an_empty_reason_is_none() {
    let entry = Override::new("a", "floor", "awake", after(1), Some(" ".to_owned()), NOW).unwrap();
    assert_eq!(entry.reason, None);
}

proptest! {
    #[test]
    fn any_reason_comes_back(reason in ".*", seconds in 1_u64..1 << 37) {
        let (_dir, path) = file();
        let entry = Override::new("a", "deep_after", "never", after(seconds), Some(reason), NOW).unwrap();
        set(&path, entry.clone(), NOW).unwrap();
        prop_assert_eq!(get(&path, NOW).unwrap(), [entry]);
    }
}
