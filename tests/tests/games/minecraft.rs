//! Minecraft Java (flying-squid): pings, scans and players of a dozing server.

use std::{
    io::Write,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use dormouse_api::{event::EventKind, status::Stage};
use dormouse_tests::{
    clients::{self, node::minecraft_join, scan},
    daemon::QUICK,
    process::Place,
    topology::CLIENT,
};

use crate::stand::{ADDRESS, NAME, Plan, Plays, SOON, Stand, TIMEOUT};

fn dozing() -> Stand {
    let stand = Stand::new(&Plan::new(Plays::Minecraft, "minecraft-java"));
    stand.doze();
    stand
}

#[test]
fn pings_of_both_kinds_are_answered_and_wake_nobody() {
    let stand = dozing();
    let to = ADDRESS;
    for _ in 0..5 {
        let answer = stand.node.client.run(|| clients::minecraft::status(to, TIMEOUT)).unwrap();
        assert!(String::from_utf8_lossy(&answer.reply).contains("dormouse test server"));
        stand.assert_never_woken();
        // As a server list does.
        thread::sleep(Duration::from_secs(2));
    }
    stand.node.client.run(|| clients::minecraft::legacy_ping(to, TIMEOUT)).unwrap();
    stand.assert_never_woken();
    stand.until_why("counted", |why| why.refused.pings_answered >= 6);
    assert!(!stand.events(EventKind::Answered).is_empty());
}

#[test]
fn a_login_needs_no_retransmission() {
    let stand = dozing();
    let to = ADDRESS;
    let answer = stand.node.client.run(|| clients::minecraft::login(to, "login", TIMEOUT)).unwrap();
    assert_eq!(answer.retransmissions, 0);
    let last = stand.until_why("told of its wake", |why| why.last_wake.is_some()).last_wake.unwrap();
    assert_eq!(last.from_stage, Stage::Dozing);
    let invalid = stand.node.invalid_packets().unwrap();
    assert_eq!((invalid.forwarded, invalid.local), (0, 0));
}

#[test]
fn a_player_joins_from_the_doze_keeps_it_awake_and_it_dozes_again() {
    // Its client answers the server's keep-alive every four seconds, and may say nothing else.
    let limits = QUICK.replace("doze_after = \"1s\"", "doze_after = \"8s\"");
    let mut stand = Stand::new(&Plan { limits: &limits, ..Plan::new(Plays::Minecraft, "minecraft-java") });
    stand.doze();
    let to = ADDRESS;
    let stay = Duration::from_secs(20);
    thread::scope(|scope| {
        let client = Place::netns(&stand.node.client);
        let player = scope.spawn(move || minecraft_join(client, to, "dora", stay));
        stand.daemon.wait_for(NAME, Stage::Awake, SOON).unwrap();
        // doze_after is less than half of her stay.
        while !player.is_finished() {
            let server = stand.daemon.server(NAME).unwrap();
            if !player.is_finished() {
                assert_eq!(server.stage, Stage::Awake, "{}", stand.daemon.log());
            }
            thread::sleep(Duration::from_millis(100));
        }
        player.join().unwrap().unwrap();
    });
    assert_eq!(stand.server.seen_address("dora").unwrap(), CLIENT[0]);
    stand.wait_for(Stage::Dozing);
}

#[test]
fn a_storm_of_connections_wakes_nobody_and_players_get_in_after_it() {
    let stand = dozing();
    let to = ADDRESS;
    // Node's backlog is 511; those who hang up stay in the queue until they are accepted.
    let silent: Vec<TcpStream> = stand.node.client.run(|| {
        (0..600)
            .filter_map(|n| match n % 4 {
                0 => TcpStream::connect_timeout(&to, Duration::from_millis(500)).ok(),
                _ => scan::connect(to, Duration::from_millis(500)).ok().and(None),
            })
            .collect()
    });
    drop(silent);
    // Whom nobody accepted keeps others out: short thaws empty the queue.
    let limit = Instant::now() + SOON;
    while stand.waiting_to_be_accepted() >= 64 {
        assert!(Instant::now() < limit, "{} wait\n{}", stand.waiting_to_be_accepted(), stand.daemon.log());
        thread::sleep(Duration::from_millis(100));
    }
    stand.assert_never_woken();
    let answer = stand.node.client.run(|| clients::minecraft::login(to, "after", TIMEOUT)).unwrap();
    assert_eq!(answer.retransmissions, 0, "{}", stand.daemon.log());
    assert_eq!(stand.events(EventKind::Wake).len(), 1);
}

#[test]
fn who_connected_before_a_short_thaw_is_judged_after_it_too() {
    let stand = dozing();
    let to = ADDRESS;
    stand.node.client.run(|| {
        let mut silent = TcpStream::connect_timeout(&to, TIMEOUT).unwrap();
        // The thaw in which this is answered also accepts the silent one.
        clients::minecraft::status(to, TIMEOUT).unwrap();
        stand.assert_never_woken();
        silent.write_all(&scan::Probe::Http.bytes()).unwrap();
    });
    stand.until_why("refused", |why| why.refused.scans > 0);
    thread::sleep(Duration::from_secs(3));
    stand.assert_never_woken();
}
