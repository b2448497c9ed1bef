//! Every message an operator may meet, to the letter.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::super::*;
use crate::discover::selector::Selector;

fn node(text: &str) -> String {
    Node::parse(Path::new("dormoused.toml"), text).unwrap_err().to_string()
}

fn server(text: &str) -> String {
    ServerFile::parse(Path::new("s.toml"), text).unwrap_err().to_string()
}

/// A sound server file with more lines after its second.
fn server_and(rest: &str) -> String {
    server(&format!("select = \"pid:1\"\nprofile = \"luanti\"\n{rest}"))
}

fn profile(text: &str) -> String {
    Profile::parse("p", "p.toml", text).unwrap_err().to_string()
}

fn typed(key: &str, value: &str) -> String {
    Patch::parse_one(key, value).unwrap_err().to_string()
}

fn stored(text: &str) -> String {
    super::super::overrides::parse(Path::new("overrides.toml"), text).unwrap_err().to_string()
}

const KEY_LIST: &str = "doze_after, deep_after, floor, doze_by, throttle_percent, resident_min, bring_back, \
     min_awake, grace_after_start, wakes_per_hour, patience, query_every, query_thaw, first_speaker, \
     busy_cpu_percent, save_wait, loopback, old_links, linked, windows";

#[track_caller]
fn table(cases: &[(String, &str)]) {
    for (said, expected) in cases {
        assert_eq!(said, expected);
    }
}

#[test]
fn of_the_node() {
    table(&[
        (
            node("log = "),
            "dormoused.toml:1: not valid TOML: string values must be quoted, expected literal string",
        ),
        (
            node("\n\nstatedir = \"/x\""),
            "dormoused.toml:3: unknown key `statedir` (did you mean `state_dir`?): allowed are state_dir, run_dir, \
             server_dir, profile_dir, pin_dir, metrics_listen, stale_after, guard_limit, headroom_wakes, \
             deep_write_budget, cgroup_root, probers, log, control, profiles_from",
        ),
        (node("run_dir = \"run\""), "dormoused.toml:1: run_dir = \"run\": expected an absolute path"),
        (
            node("metrics_listen = \"localhost\""),
            "dormoused.toml:1: metrics_listen = \"localhost\": expected an address and a port like \
             \"127.0.0.1:9877\", or \"never\"",
        ),
        (node("stale_after = \"1ms\""), "dormoused.toml:1: stale_after = \"1ms\": must be at least 200ms"),
        (
            node("deep_write_budget = 200"),
            "dormoused.toml:1: deep_write_budget = 200: expected a size like \"64MiB\" or \"2GiB\" (B, KiB, MiB, GiB, TiB), \
             or \"never\"",
        ),
        (
            node("deep_write_budget = \"1MiB\""),
            "dormoused.toml:1: deep_write_budget = \"1MiB\": must be at least 64MiB a day; to keep servers from going deep \
             at all, set floor = \"dozing\" in their files",
        ),
        (
            node("guard_limit = 10"),
            "dormoused.toml:1: guard_limit = 10: expected a duration like \"10m\", \"90s\" or \"1h 30m\"",
        ),
        (
            node("probers = [\"kubelet.service\"]"),
            "dormoused.toml:1: probers = [\"kubelet.service\"]: expected a list; each element: expected a cgroup below \
             the root, as \"/system.slice/kubelet.service\"",
        ),
        (node("log = \"\""), "dormoused.toml:1: log = \"\": expected a text that is not empty"),
    ]);
}

#[test]
fn of_a_server() {
    const NAME: &str = "expected NAME or TENANT/NAME of a-z, 0-9, `-`, `_` and `.`, at most 128 letters";
    table(&[
        (
            server("profile = \"luanti\""),
            "s.toml: `select` is missing: allowed are cgroup:GLOB, unit:NAME, docker:NAME, podman:NAME and pid:NUMBER",
        ),
        (
            server("select = \"lxc:a\""),
            "s.toml:1: select = \"lxc:a\": allowed are cgroup:GLOB, unit:NAME, docker:NAME, podman:NAME and pid:NUMBER",
        ),
        (
            server("select = \"unit:my game.service\""),
            "s.toml:1: select = \"unit:my game.service\": the name is empty, begins with '-', or holds a space or control character",
        ),
        (
            server("select = \"cgroup:/games/..\""),
            "s.toml:1: select = \"cgroup:/games/..\": a path below the cgroup root holds no '.' or '..' (for instance cgroup:/games/*)",
        ),
        (server("select = \"pid:1\""), "s.toml: `profile` is missing: expected a text that is not empty"),
        (server_and("name = \"a/b/c\""), &format!("s.toml:3: name = \"a/b/c\": {NAME}")),
        (
            ServerFile::parse(Path::new("My World.toml"), "").unwrap_err().to_string(),
            &format!(
                "My World.toml: name = \"My World\": the file's name is no server name; set `name`: {NAME}"
            ),
        ),
        (server_and("mode = \"on\""), "s.toml:3: mode = \"on\": allowed are observe, doze, full"),
        (
            server_and("ports = 25565"),
            "s.toml:3: ports = 25565: expected a list like [\"tcp/25565\", \"udp/30000\"]",
        ),
        (
            server_and("ports = [\n  \"tcp/1\",\n  \"25565\",\n]"),
            "s.toml:5: ports = \"25565\": expected a port like \"tcp/25565\" or \"udp/30000\"",
        ),
        (
            server_and("ports = [\"tcp/1\", \"tcp/1\"]"),
            "s.toml:3: ports = \"tcp/1\": this port is already in the list",
        ),
        (
            server_and("ports = [{ port = \"udp/1\", protocol = \"minecraft-java\" }]"),
            "s.toml:3: ports.protocol = \"minecraft-java\": this protocol is not spoken on udp/1",
        ),
        (
            server_and("ports = [{ port = \"udp/1\", protocol = \"quake\" }]"),
            "s.toml:3: ports.protocol = \"quake\": allowed are generic-tcp, generic-udp, minecraft-java, luanti, teeworlds",
        ),
        (
            server_and("save_files = [\"a[\"]"),
            "s.toml:3: save_files = [\"a[\"]: expected a list; each element: expected a file name or pattern like \
             \"world/*.wld\"",
        ),
        (
            server_and("[limits]\ndoze_by = \"frezze\""),
            "s.toml:4: limits.doze_by = \"frezze\": allowed are freeze, throttle",
        ),
        (
            server_and("[limits]\ndose_after = \"5m\""),
            &format!(
                "s.toml:4: unknown key `limits.dose_after` (did you mean `doze_after`?): allowed are {KEY_LIST}"
            ),
        ),
        (server_and("limits = 3"), "s.toml:3: limits = 3: expected a table"),
        (
            server_and("[assert]\nwatchdog = \"off\""),
            "s.toml:4: assert.watchdog = \"off\": expected { value = \"off\", reason = \"why you know\" }",
        ),
        (
            server_and("[assert]\nsave = { value = \"not-needed\" }"),
            "s.toml:4: `assert.save.reason` is missing: expected a text that is not empty",
        ),
        (
            server_and("[assert]\nsave = { value = \"not-needed\", reason = \" \" }"),
            "s.toml:4: assert.save.reason = \" \": expected a text that is not empty",
        ),
        (
            server_and("[assert]\noutbound = { value = \"fine\", reason = \"x\" }"),
            "s.toml:4: assert.outbound.value = \"fine\": the only value is \"harmless\"",
        ),
        (
            server_and("[assert]\noutbound = { reason = \"x\" }"),
            "s.toml:4: `assert.outbound.value` is missing: expected { value = \"harmless\", reason = \"why you know\" }",
        ),
        (
            server_and("[hooks]\nbefore_doze = { timeout = \"1s\" }"),
            "s.toml:4: `hooks.before_doze.exec` is missing: a hook needs either exec = [\"/path\", …] or rcon = { … }",
        ),
        (
            server_and("[hooks]\nafter_wake = { exec = [\"ls\"] }"),
            "s.toml:4: hooks.after_wake.exec = [\"ls\"]: expected a program by its absolute path, then its arguments",
        ),
        (
            server_and("[hooks.before_doze]\nexec = [\"/bin/ls\"]\nrcon = {}"),
            "s.toml:5: hooks.before_doze.rcon = {}: a hook is either exec or rcon, not both",
        ),
        (
            server_and("[hooks.before_doze]\nrcon = { address = \"127.0.0.1:25575\", password = \"x\" }"),
            "s.toml:4: `hooks.before_doze.rcon.password_file` is missing: expected an absolute path",
        ),
    ]);
}

#[test]
fn of_a_profile() {
    table(&[
        (
            profile("watchdog = \"off\""),
            "p.toml:1: watchdog = \"off\": allowed are \"none\", \"unknown\" or a list like \
             [\"server.properties:max-tick-time=-1\"]",
        ),
        (
            profile("save = \"no\""),
            "p.toml:1: save = \"no\": allowed are \"not-needed\" or a table with hook = { command, expect } and \
             files = [\"…\"]",
        ),
        (
            profile("verified = true"),
            "p.toml:1: verified = true: allowed are \"never\" or { version, date, by }",
        ),
        (
            profile("verified = { version = \"1\", date = \"2026-01-01\" }"),
            "p.toml:1: `verified.by` is missing: expected a text that is not empty",
        ),
        (profile("ready = \"login\""), "p.toml:1: ready = \"login\": allowed are alive, listening, status"),
        (
            profile("limits.floor = \"deep\""),
            "profile p: floor = \"deep\" (from p.toml): a profile with verified = \"never\" may not promise deep; \
             a server file may ask for it",
        ),
        (
            profile("refuse = \"no\"\n"),
            "profile p: floor = \"dozing\" (from built in): must be \"awake\" with profile p: no",
        ),
        (
            profile("refuse_freeze = \"no\"\nlimits.doze_by = \"freeze\""),
            "profile p: doze_by = \"freeze\" (from p.toml): must be \"throttle\" with profile p: no",
        ),
    ]);
}

#[test]
fn of_the_rules() {
    let rule = |limit: &str| profile(&format!("limits.{limit}"));
    table(&[
        (rule("doze_after = \"0s\""), "profile p: doze_after = \"0s\" (from p.toml): must be at least 1s"),
        (
            rule("throttle_percent = 101"),
            "profile p: throttle_percent = 101 (from p.toml): must be from 1 to 100 (percent of one core)",
        ),
        (
            rule("wakes_per_hour = 0"),
            "profile p: wakes_per_hour = 0 (from p.toml): must be at least 1; to forbid sleep set floor = \"awake\"",
        ),
        (rule("patience = \"0s\""), "profile p: patience = \"0s\" (from p.toml): must be longer than 0s"),
        (
            rule("query_thaw = \"1s\""),
            "profile p: query_thaw = \"1s\" (from p.toml): must be longer than 0s and at most 250ms",
        ),
        (
            rule("query_every = \"50ms\""),
            "profile p: query_every = \"50ms\" (from p.toml): must not be shorter than query_thaw",
        ),
        (
            rule("busy_cpu_percent = 0"),
            "profile p: busy_cpu_percent = 0 (from p.toml): must be at least 1: every server would count as busy; \
             to switch it off say \"never\"",
        ),
    ]);
}

#[test]
fn the_last_sound_values() {
    for limit in [
        "doze_after = \"1s\"",
        "throttle_percent = 1",
        "throttle_percent = 100",
        "wakes_per_hour = 1",
        "patience = \"1ns\"",
        "query_thaw = \"1ns\"",
        "query_every = \"100ms\"",
        "busy_cpu_percent = 1",
        "deep_after = \"0s\"",
    ] {
        Profile::parse("p", "p.toml", &format!("limits.{limit}")).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn of_what_is_typed_and_stored() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
    let end = |until| Override::new("a", "floor", "awake", until, None, now).unwrap_err().to_string();
    let entry = "[[override]]\nserver = \"a\"\nuntil = \"2026-12-31T18:00:00Z\"\n";
    table(&[
        (typed("doze_by", "frezze"), "profile set:1: doze_by = \"frezze\": allowed are freeze, throttle"),
        (
            typed("doze_buy", "freeze"),
            &format!(
                "profile set:1: unknown key `doze_buy` (did you mean `doze_by`?): allowed are {KEY_LIST}"
            ),
        ),
        (
            typed("resident_min", "64MB"),
            "profile set:1: resident_min = \"64MB\": expected a size like \"64MiB\" or \"2GiB\" (B, KiB, MiB, GiB, TiB)",
        ),
        (
            typed("throttle_percent", "-1"),
            "profile set:1: throttle_percent = -1: expected a whole number from 0 to 4294967295",
        ),
        (
            typed("windows", "[\"someday\"]"),
            "profile set:1: windows = [\"someday\"]: expected a list; each element: expected hours like \
             \"18:00-23:00\" or \"fri,sat 18:00-02:00\"",
        ),
        (
            typed("patience", "\"1s\"\nfloor = \"deep\""),
            "profile set: patience = \"1s\"…: expected one value on one line",
        ),
        (end(now), "profile set: until = 2027-01-15T08:00:00Z: an override must end, and later than now"),
        (
            end(now + Duration::from_hours(24 * 366 * 8000)),
            "profile set: until = after the year 9999: an override must end, and later than now",
        ),
        (stored("override = 1"), "overrides.toml:1: override = 1: expected [[override]] tables"),
        (
            stored("[[override]]\nserver = \"a\"\nuntil = \"tomorrow\""),
            "overrides.toml:3: override.until = \"tomorrow\": expected a time in UTC like \"2026-12-31T18:00:00Z\"",
        ),
        (stored(entry), &format!("overrides.toml:1: `override.key` is missing: allowed are {KEY_LIST}")),
        (
            stored(&format!("{entry}key = \"floor\"")),
            "overrides.toml:1: `override.value` is missing: expected a value of floor",
        ),
        (
            stored(&format!("{entry}key = \"flor\"\nvalue = 1")),
            &format!("overrides.toml:4: override.key = \"flor\": did you mean floor? allowed are {KEY_LIST}"),
        ),
    ]);
}

#[test]
fn of_files_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.toml");
    fs::write(&path, [0xff]).unwrap();
    let unreadable = Node::load(&path).unwrap_err();
    assert_eq!(
        unreadable.to_string(),
        format!("{}: cannot be read: stream did not contain valid UTF-8", path.display())
    );
    assert_eq!(unreadable.file(), Some(path.as_path()));

    let now = SystemTime::UNIX_EPOCH;
    let entry = Override::new("a", "floor", "awake", now + Duration::from_secs(9), None, now).unwrap();
    fs::create_dir(dir.path().join("y.toml.new")).unwrap();
    let path = dir.path().join("y.toml");
    assert_eq!(
        set(&path, entry, now).unwrap_err().to_string(),
        format!("{}: cannot be written: Is a directory (os error 21)", path.display())
    );
}

proptest! {
    #[test]
    fn nothing_panics(text in "\\PC*", key in "[a-z_]{0,20}") {
        let _ = Node::parse(Path::new("f"), &text);
        let _ = ServerFile::parse(Path::new("f"), &text);
        let _ = Profile::parse("p", "f", &text);
        let _ = super::super::overrides::parse(Path::new("f"), &text);
        let _ = Patch::parse_one(&key, &text);
        let _ = text.parse::<Selector>();
        for key in KEYS {
            let _ = Patch::parse_one(key, &text);
        }
    }

    /// Text that is TOML and has the right keys gets further than arbitrary text.
    #[test]
    fn nothing_panics_behind_the_parser(
        key in prop::sample::select(vec!["name", "select", "ports", "mode", "save_files", "assert.watchdog",
            "assert.save.value", "hooks.before_doze.exec", "hooks.before_doze.rcon.address", "limits.windows",
            "save", "save.hook", "watchdog", "verified", "limits.resident_min", "limits.linked", "override"]),
        value in prop::sample::select(vec!["{}", "[]", "[[]]", "[{}]", "\"\"", "-1", "0x10", "1e9", "true", "nan",
            "2026-01-01", "[\"\"]", "\"é:é\"", "\"99999999999999999999TiB\"", "\"24:00-24:00\"", "\"\\n\""]),
    ) {
        let text = format!("{key} = {value}");
        let sound = format!("select = \"pid:1\"\nprofile = \"x\"\n{text}");
        let _ = ServerFile::parse(Path::new("f"), &text);
        let _ = ServerFile::parse(Path::new("f"), &sound);
        let _ = Profile::parse("p", "f", &text);
        let _ = super::super::overrides::parse(Path::new("f"), &text);
    }
}
