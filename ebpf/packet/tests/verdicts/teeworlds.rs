//! Teeworlds 0.6, 0.7 and DDNet: verdicts on datagrams of real conversations, and on broken ones.

use dormouse_packet::{Class, Game};

use crate::common::{self, hex};

fn verdict(datagram: &str, nth: u32) -> Class {
    common::verdict(Game::Teeworlds, &hex(datagram), nth)
}

/// The first three chunks of a real client: info, and two that belong to DDNet.
const FIRST_DATA: &str = "00000344010101ee610b6f909f311e93f711a95f55a08668747470733a2f2f7777772e6e706d6a732e636f6d2f7061636b6167652f746565776f726c64732f762f322e362e3100460202018c00130484613e478787f672b3835bd46f94900bd5ec145e4116d7c5d1c2a409b2fa0144444e65742031362e352e303b2068747470733a2f2f7777772e6e706d6a732e636f6d2f7061636b6167652f746565776f726c64732f762f322e362e310041070303302e362036323666636539613737386466346434000074e435ce";

/// Fills up to the 512 bytes of data that a token request must have, so that the answer is no amplifier.
fn padded(start: &str) -> String {
    format!("{start:0<1040}")
}

#[test]
fn a_real_join_of_ddnet() {
    // npm teeworlds 2.6 with DDNet 16.4 over loopback.
    for (nth, (datagram, class)) in (1..).zip([
        ("10000001544b454effffffff", Class::Query),
        ("1000000374e435ce", Class::Player),
        (FIRST_DATA, Class::Player),
        // No chunk, no flag: newer servers refuse it too.
        ("00040074e435ce", Class::Noise),
        ("0004014001041d74e435ce", Class::Player),
        ("00060241070528626f7400004067726579666f780001b7f9ee09bfff07400c062363726173686d65706c780074e435ce", Class::Player),
        ("001c01010021aa02a102280000000000000101000074e435ce", Class::Player),
        ("101c000474e435ce", Class::Query),
    ]) {
        assert_eq!(verdict(datagram, nth), class, "datagram {nth}");
    }
}

#[test]
fn a_real_join_of_0_7() {
    let request = padded("040000ffffffff05e9a55a0f");
    let connect = padded("04000074e435ce01e9a55a0f");
    assert_eq!(request.len(), 2 * 520);
    assert_eq!(verdict(&request, 1), Class::Query);
    assert_eq!(verdict("2174e435cee9a55a0fffffffff6769653300", 2), Class::Query, "info with the token");
    assert_eq!(verdict(&connect, 3), Class::Player);
    assert_eq!(verdict(&connect, 1), Class::Query, "nobody was given a token yet");
    assert_eq!(verdict(&padded("040000ffffffff01e9a55a0f"), 3), Class::Query, "without a token");
    assert_eq!(verdict("04000074e435ce04", 4), Class::Query, "close");
    assert_eq!(verdict("04000074e435ce00", 4), Class::Query, "keepalive");
    assert_eq!(verdict("04000074e435ce02", 4), Class::Noise, "accept is the server's");
}

#[test]
fn plain_0_6_has_no_token() {
    assert_eq!(verdict("10000001", 1), Class::Query);
    assert_eq!(verdict("10000003", 2), Class::Player);
    assert_eq!(verdict("10000003", 1), Class::Query);
    assert_eq!(verdict("10000003ffffffff", 2), Class::Query, "DDNet's token is still unknown");
    assert_eq!(verdict("10000002", 2), Class::Noise, "connect-accept is the server's");
    assert_eq!(verdict("10000004", 2), Class::Query, "close");
}

#[test]
fn tokens_of_0_6_5_are_in_the_header() {
    assert_eq!(verdict(&padded("1000000100000000aabbccdd"), 1), Class::Query);
    assert_eq!(verdict("080001aabbccdd4003016f6b21", 2), Class::Player, "a vital chunk of three bytes");
    assert_eq!(verdict("180000aabbccdd04", 3), Class::Query, "close");
}

#[test]
fn info_requests() {
    // All four were answered by DDNet 16.4.
    for datagram in [
        "ffffffffffffffffffff6769653307",
        "ffffffffffffffffffff6673746407",
        "786512340000ffffffff6769653307",
        "2174e435cee9a55a0fffffffff6769653300",
    ] {
        assert_eq!(verdict(datagram, 1), Class::Query);
        assert_eq!(verdict(datagram, 50), Class::Query, "asking often wakes nobody");
    }
    for (datagram, game) in [
        ("ffffffff54536f7572636520456e67696e6520517565727900", "Source"),
        ("ffffffff676574737461747573", "Quake 3"),
        ("ffffffffffffffffffff696e663307", "a server's answer"),
    ] {
        assert_eq!(verdict(datagram, 1), Class::Noise, "{game}");
    }
}

#[test]
fn broken_datagrams() {
    for (datagram, why) in [
        ("", "empty"),
        ("1000", "cut"),
        ("100000", "control without a message"),
        ("04000074e435ce", "control without a message"),
        ("10000103", "control with chunks"),
        ("1000000a", "no such message"),
        ("00000144010101", "a chunk longer than the datagram"),
        ("00000100000000000000", "an empty chunk"),
        ("00001101010000", "more chunks than clients send"),
    ] {
        assert_eq!(verdict(datagram, 2), Class::Noise, "{why}");
    }
    assert_eq!(verdict(&format!("{:0<2804}", "10000003"), 2), Class::Noise, "longer than 1400 bytes");
}

#[test]
fn random_datagrams_wake_hardly_anybody() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let (mut first, mut later) = (0, 0);
    let datagrams = 100_000;
    for _ in 0..datagrams {
        let mut bytes = [0; 48];
        for byte in &mut bytes {
            // xorshift64: the same datagrams every time.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = (state >> 32) as u8;
        }
        first += u32::from(common::verdict(Game::Teeworlds, &bytes, 1) == Class::Player);
        later += u32::from(common::verdict(Game::Teeworlds, &bytes, 2) == Class::Player);
    }
    assert_eq!(first, 0);
    assert!(later < datagrams / 150, "{later} of {datagrams}");
}
