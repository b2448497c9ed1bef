//! The world moves on while a server sleeps: it is killed, replaced, or gets another veth.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use dormouse_api::{event::EventKind, status::Stage};
use dormouse_tests::clients;
use nix::sys::signal::Signal;

use crate::stand::{ADDRESS, PORT, Plan, Plays, SOON, Stand, TIMEOUT};

fn echo() -> Stand {
    Stand::new(&Plan::new(Plays::Echo, "generic-tcp"))
}

fn a_player_wakes_it(stand: &Stand) {
    stand.doze();
    let to = ADDRESS;
    let answer = stand.node.client.run(|| clients::echo::tcp(to, b"player", TIMEOUT));
    let answer = answer.unwrap_or_else(|error| panic!("{error:#}\n{}", stand.daemon.log()));
    assert_eq!(answer.retransmissions, 0);
    stand.wait_for(Stage::Awake);
}

fn files_below(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn gone(stand: &Stand) {
    stand.until("seen to be gone", |server| {
        server.stage == Stage::Awake
            && server.note.as_deref().is_some_and(|note| note.contains("not running"))
    });
}

/// No door, no entry in the undo log, nothing frozen.
fn nothing_is_left(stand: &Stand) {
    let limit = Instant::now() + SOON;
    loop {
        let undo = files_below(&stand.daemon.path("run/undo"));
        let links = files_below(&stand.daemon.pin_dir().join(dormouse_abi::LAYOUT).join("links"));
        let frozen = fs::read_to_string(stand.cgroup.path().join("cgroup.freeze")).unwrap();
        if undo.is_empty() && links.is_empty() && frozen.trim() == "0" {
            return;
        }
        assert!(Instant::now() < limit, "left: {undo:?} {links:?} {frozen}\n{}", stand.daemon.log());
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_server_killed_while_frozen_leaves_nothing_and_its_next_process_is_watched() {
    let mut stand = echo();
    stand.doze();
    stand.server.process.signal(Signal::SIGKILL).unwrap();
    stand.server.process.wait(SOON).unwrap();
    gone(&stand);
    nothing_is_left(&stand);
    assert_eq!(stand.events(EventKind::Crash).len(), 1);
    stand.server = Plays::Echo.start(stand.place()).unwrap();
    a_player_wakes_it(&stand);
}

#[test]
fn a_server_that_restarts_in_its_cgroup_is_watched_anew() {
    let mut stand = echo();
    // The old process is gone before the daemon looks, and the new one is there.
    stand.server.process.signal(Signal::SIGKILL).unwrap();
    stand.server.process.wait(SOON).unwrap();
    stand.server = Plays::Echo.start(stand.place()).unwrap();
    a_player_wakes_it(&stand);
    assert_eq!(stand.server.port, PORT);
}

#[test]
fn a_new_veth_gets_a_door_while_the_server_is_awake() {
    let stand = echo();
    stand.node.rewire(0).unwrap();
    stand.until_why("seen", |_| stand.daemon.log().contains("its veth was replaced"));
    a_player_wakes_it(&stand);
}

#[test]
fn a_new_veth_of_a_sleeper_locks_nobody_out() {
    let stand = echo();
    stand.doze();
    stand.node.rewire(0).unwrap();
    let to = ADDRESS;
    let answer = stand.node.client.run(|| clients::echo::tcp(to, b"player", SOON));
    answer.unwrap_or_else(|error| panic!("{error:#}\n{}", stand.daemon.log()));
    a_player_wakes_it(&stand);
}
