//! What all the tests of verdicts need.

use dormouse_packet::window::WINDOW;
use dormouse_packet::{Class, Game, Window, classify};

/// What a function makes of a stream's first bytes. What lies behind the valid bytes must not matter: in the
/// kernel it is left over from another packet.
pub fn with_window<T: PartialEq + std::fmt::Debug>(bytes: &[u8], judge: impl Fn(&Window<'_>) -> T) -> T {
    let len = bytes.len().min(WINDOW);
    let with = |rest: u8| {
        let mut buffer = [rest; WINDOW];
        buffer[..len].copy_from_slice(&bytes[..len]);
        judge(&Window::new(&buffer, len, bytes.len()))
    };
    let judged = with(0xa5);
    for rest in [0x00, 0x0d, 0xff] {
        assert_eq!(judged, with(rest), "reads past the end");
    }
    judged
}

/// The verdict on a stream's first bytes, or on one datagram.
pub fn verdict(game: Game, bytes: &[u8], nth: u32) -> Class {
    with_window(bytes, |window| classify(game, window, nth))
}

pub fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hex digits"))
        .collect()
}
