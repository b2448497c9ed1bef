use std::path::Path;
use std::time::Duration;

use super::super::*;
use crate::discover::selector::Selector;
use crate::limits::{Mode, Window};

fn window(text: &str) -> Window {
    Patch::parse_one("windows", &format!("[\"{text}\"]")).unwrap().windows.unwrap()[0]
}

#[test]
fn an_absent_file_is_all_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::load(&dir.path().join("none.toml")).unwrap();
    assert_eq!(node.socket(), Path::new("/run/dormouse/dormouse.sock"));
    assert_eq!(node.server_dir, Path::new("/var/lib/dormouse/servers.d"));
    assert_eq!(node.overrides(), Path::new("/var/lib/dormouse/overrides.toml"));
    assert_eq!(node.pin_dir, Path::new("/sys/fs/bpf/dormouse"));
    assert_eq!(node.metrics_listen.unwrap().to_string(), "127.0.0.1:9877");
    assert_eq!((node.stale_after, node.guard_limit), (Duration::from_secs(2), Duration::from_mins(10)));
    assert_eq!(node.cgroup_root, None);
}

#[test]
fn every_path_can_be_elsewhere() {
    let text = "run_dir = \"/t/run\"\nstate_dir = \"/t/state\"\nprofile_dir = \"/t/p\"\npin_dir = \"/t/pin\"\n\
                cgroup_root = \"/t/cg\"\nmetrics_listen = \"never\"\n";
    let node = Node::parse(Path::new("f"), text).unwrap();
    assert_eq!(node.undo_log(), Path::new("/t/run/undo.log"));
    assert_eq!(node.off_marker(), Path::new("/t/state/off"));
    assert_eq!(node.history(), Path::new("/t/state/history"));
    assert_eq!(node.server_dir, Path::new("/t/state/servers.d"));
    assert_eq!(node.profile_dir, Path::new("/t/p"));
    assert_eq!(node.cgroup_root.as_deref(), Some(Path::new("/t/cg")));
    assert_eq!(node.metrics_listen, None);
}

#[test]
fn a_server_file_with_everything() {
    let text = r#"
name = "acme/survival"
select = "docker:mc"
profile = "minecraft-java"
mode = "full"
ports = ["tcp/25565", { port = "tcp/25575", protocol = "generic-tcp" }]
save_files = ["world/level.dat"]
[limits]
deep_after = "never"
resident_min = "2GiB"
[assert]
watchdog = { value = "off", reason = "flying-squid has none" }
[hooks.before_doze]
timeout = "5s"
rcon = { address = "127.0.0.1:25575", password_file = "/etc/mc.pw", command = "save-all", expect = "Saved" }
[hooks.after_wake]
exec = ["/bin/true", "a b"]
"#;
    let server = ServerFile::parse(Path::new("x y.toml"), text).unwrap();
    assert_eq!((server.name.as_str(), server.mode), ("acme/survival", Mode::Full));
    assert_eq!(server.select, Selector::Docker("mc".to_owned()));
    assert_eq!(server.ports.len(), 2);
    assert_eq!(server.patch.resident_min, Some(2 << 30));
    assert_eq!(server.patch.show("deep_after").as_deref(), Some("\"never\""));
    assert_eq!(server.assertions.watchdog_off.as_deref(), Some("flying-squid has none"));
    let hook = server.hooks.before_doze.unwrap();
    assert_eq!(hook.timeout, Duration::from_secs(5));
    assert!(matches!(hook.action, Action::Rcon(Rcon { expect: Some(_), .. })));
    let exec = vec!["/bin/true".to_owned(), "a b".to_owned()];
    let after = Hook { action: Action::Exec(exec), timeout: Duration::from_secs(30) };
    assert_eq!(server.hooks.after_wake, Some(after));
}

#[test]
fn a_new_server_observes_and_is_named_by_its_file() {
    let text = "select = \"cgroup:/games/*\"\nprofile = \"luanti\"";
    let server = ServerFile::parse(Path::new("/etc/mine-2.toml"), text).unwrap();
    assert_eq!((server.name.as_str(), server.mode), ("mine-2", Mode::Observe));
}

#[test]
fn windows_know_their_hours() {
    let evening = window("fri 18:00-23:00");
    assert!(evening.contains(4, 18 * 60) && evening.contains(4, 22 * 60 + 59));
    assert!(!evening.contains(4, 23 * 60) && !evening.contains(5, 19 * 60));

    let over_midnight = window("sun 22:00-02:00");
    assert!(over_midnight.contains(6, 23 * 60) && over_midnight.contains(0, 60));
    assert!(!over_midnight.contains(6, 60) && !over_midnight.contains(0, 23 * 60));

    let whole_day = window("00:00-24:00");
    assert!((0..7).all(|day| (0..24 * 60).all(|minute| whole_day.contains(day, minute))));
}

#[test]
fn words_need_no_quotes_when_typed() {
    assert_eq!(Patch::parse_one("floor", "deep").unwrap(), Patch::parse_one("floor", "\"deep\"").unwrap());
    assert_eq!(Patch::parse_one("doze_after", "10m").unwrap().doze_after, Some(Duration::from_mins(10)));
    assert_eq!(Patch::parse_one("wakes_per_hour", "20").unwrap().wakes_per_hour, Some(20));
    assert_eq!(Patch::parse_one("linked", "[\"a\"]").unwrap().linked, Some(vec!["a".to_owned()]));
}
