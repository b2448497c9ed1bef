//! Luanti: verdicts on datagrams of a real join, and on broken ones.

use dormouse_packet::{Class, Game};

use crate::common::{self, hex};

fn verdict(datagram: &str, nth: u32) -> Class {
    common::verdict(Game::Luanti, &hex(datagram), nth)
}

/// A join of a 5.6 server over loopback (protocol 41), in the order in which the client spoke.
const JOIN: [(&str, Class); 8] = [
    // Reliable, original, empty: nothing but "who am I".
    ("4f45740300000003ffdc01", Class::Query),
    // The acknowledgement of SET_PEER_ID, still as peer 0, then TOSERVER_INIT as peer 2.
    ("4f4574030000000000ffdc", Class::Query),
    ("4f4574030002010100021c0000002500290008626f743633313330", Class::Player),
    ("4f4574030002010100021c0000002500290008626f743633313330", Class::Player),
    ("4f4574030002000000ffdd", Class::Query),
    ("4f45740300020103ffdc0100500010755d861f529306da6923b13a2a2d8af401009ea38949d5aaf6", Class::Player),
    ("4f4574030002000000ffde", Class::Query),
    ("4f45740300020103ffdd0100110000", Class::Player),
];

#[test]
fn a_real_join() {
    for (nth, (datagram, class)) in (1..).zip(JOIN) {
        assert_eq!(verdict(datagram, nth), class, "datagram {nth}");
    }
}

#[test]
fn init_wakes_only_under_a_peer_id() {
    let init = "0100021c0000002500290008626f743633313330";
    assert_eq!(verdict(&format!("4f457403000001{init}"), 2), Class::Query, "peer 0");
    assert_eq!(verdict(&format!("4f457403000101{init}"), 2), Class::Noise, "peer 1 is the server");
    assert_eq!(verdict(&format!("4f457403000201{init}"), 2), Class::Player);
    assert_eq!(verdict(&format!("4f457403fffe01{init}"), 2), Class::Player);
    assert_eq!(verdict(&format!("4f457403000201{init}"), 1), Class::Query, "nobody was given an id yet");
}

#[test]
fn a_list_ping_and_its_goodbye_wake_nobody() {
    assert_eq!(verdict("4f4574030000000001", 1), Class::Query);
    assert_eq!(verdict("4f45740300000001", 1), Class::Query);
    assert_eq!(verdict("4f4574030005000003", 2), Class::Query, "DISCO");
}

#[test]
fn broken_datagrams() {
    for (datagram, why) in [
        ("", "empty"),
        ("4f457403", "cut"),
        ("4f457404000201010002", "another protocol"),
        ("4f457403000203010002", "channel 3"),
        ("4f4574030002000004", "type 4"),
        ("4f45740300020000", "control without a kind"),
        ("4f457403000200000100ff", "SET_PEER_ID is the server's"),
        ("4f4574030002000004", "no such control"),
        ("4f4574030002000100", "a command of one byte"),
        ("4f45740300020003ffdc03ffdd010002", "reliable in reliable"),
        ("4f45740300020003ffdc", "reliable and nothing"),
        ("4f45740300020002ffdc00020000", "split and nothing"),
        ("ffffffff54536f7572636520456e67696e6520517565727900", "Source query"),
    ] {
        assert_eq!(verdict(datagram, 2), Class::Noise, "{why}");
    }
}

#[test]
fn pings_keep_nobody_awake() {
    assert_eq!(verdict("4f45740300020003ffdc0002", 9), Class::Query, "sent reliably, as clients do");
    assert_eq!(verdict("4f457403000200ffdc0002", 9), Class::Noise);
}

#[test]
fn a_split_message_is_a_players() {
    assert_eq!(verdict("4f45740300020103ffdd02ffdc0002000000", 3), Class::Player);
    assert_eq!(verdict("4f457403000201 02ffdc0002000000".replace(' ', "").as_str(), 3), Class::Player);
}
