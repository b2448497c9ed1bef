//! What all the tests of verdicts need.

use dormouse_packet::window::WINDOW;
use dormouse_packet::{Class, Game, Window, classify};

/// The verdict on a stream's first bytes, or on one datagram.
pub fn verdict(game: Game, bytes: &[u8], nth: u32) -> Class {
    let len = bytes.len().min(WINDOW);
    // What lies behind the valid bytes must not matter: in the kernel it is left over from another packet.
    let mut buffer = [0xa5; WINDOW];
    buffer[..len].copy_from_slice(&bytes[..len]);
    let class = classify(game, &Window::new(&buffer, len, bytes.len()), nth);
    for rest in [0x00, 0x0d, 0xff] {
        buffer[len..].fill(rest);
        assert_eq!(class, classify(game, &Window::new(&buffer, len, bytes.len()), nth), "reads past the end");
    }
    class
}

pub fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hex digits"))
        .collect()
}
