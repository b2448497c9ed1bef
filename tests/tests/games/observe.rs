//! Mode observe decides on paper: the server and its clients notice nothing.

use std::{
    collections::BTreeMap,
    fs,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::Duration,
};

use dormouse_api::{event::EventKind, status::Stage};
use dormouse_tests::{
    cgroup::Cgroup,
    clients::{self, node::minecraft_join},
    process::Place,
};

use crate::stand::{ADDRESS, NAME, Plan, Plays, Stand, TIMEOUT};

/// What dormouse could change about a cgroup.
fn settings(cgroup: &Cgroup) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    for entry in fs::read_dir(cgroup.path()).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let is_setting =
            ["cgroup.freeze", "cpu.max", "memory.high", "memory.low", "memory.min"].contains(&&*name);
        if is_setting {
            settings.insert(name, fs::read_to_string(entry.path()).unwrap());
        }
    }
    settings
}

#[test]
fn observe_touches_nothing_and_says_what_it_would_have_done() {
    let stand = Stand::new(&Plan { mode: "observe", ..Plan::new(Plays::Minecraft, "minecraft-java") });
    let before = settings(&stand.cgroup);
    assert!(before.contains_key("cgroup.freeze"));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(SeqCst) {
                assert!(!stand.cgroup.is_frozen().unwrap());
                thread::sleep(Duration::from_millis(2));
            }
        });
        let note = |word: &str| {
            stand.until(word, |server| {
                assert_eq!(server.stage, Stage::Awake);
                server.note.as_deref().is_some_and(|note| note.contains(word))
            })
        };
        note("would be dozing");
        let to = ADDRESS;
        stand.node.client.run(|| clients::minecraft::status(to, TIMEOUT)).unwrap();
        let client = Place::netns(&stand.node.client);
        minecraft_join(client, to, "eve", Duration::from_secs(1)).unwrap();
        note("would have been woken");
        note("would be dozing");
        done.store(true, SeqCst);
    });
    assert_eq!(settings(&stand.cgroup), before);
    for kind in [EventKind::Doze, EventKind::Deep, EventKind::Wake] {
        assert!(stand.events(kind).is_empty(), "{kind:?}");
    }
    assert!(stand.daemon.why(NAME).unwrap().last_wake.is_none());
}
