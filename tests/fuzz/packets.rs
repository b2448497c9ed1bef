//! The packet crate, as the kernel runs it.

use dormouse_packet::{
    Class, Game, Window,
    headers::{self, Fragment, Source},
    window::WINDOW,
};

/// A frame, down to its payload: every offset that is given out can be read or is past the end, never wraps.
pub fn headers(frame: &[u8]) {
    let Ok(packet) = headers::ethernet(&frame) else { return };
    assert!(packet.network < packet.transport, "{packet:?}");
    assert!(packet.end as usize <= frame.len(), "{packet:?} of {} bytes", frame.len());
    assert!(headers::source_address(&frame, &packet).is_some(), "{packet:?}");
    if packet.fragment == Fragment::Later {
        return;
    }
    let (payload, len) = match packet.protocol {
        headers::TCP => match headers::segment(&frame, &packet) {
            Some(segment) => (segment.payload, segment.payload_len),
            None => return,
        },
        _ => headers::datagram(&packet),
    };
    if len != 0 {
        assert!(payload + len <= frame.len() as u32, "{packet:?}: {len} bytes at {payload}");
        assert!(frame.load::<1>(payload).is_some());
    }
}

/// The first bytes of a stream or a datagram: game, number of the datagram, bytes. What was decided of a
/// stream's start is decided of the whole, but for what `classify` itself says of Minecraft.
pub fn classify(bytes: &[u8]) {
    let Some((&[game, nth], said)) = bytes.split_first_chunk::<2>() else { return };
    let game = Game::from_number(game % 5);
    let mut buffer = [0; WINDOW];
    let len = said.len().min(WINDOW);
    buffer[..len].copy_from_slice(&said[..len]);
    let whole = dormouse_packet::classify(game, &Window::new(&buffer, len, said.len()), u32::from(nth));
    if game == Game::GenericTcp {
        assert_eq!(whole == Class::Player, len > 0);
    }
    for cut in 0..len.min(64) {
        let _ = dormouse_packet::classify(game, &Window::new(&buffer, cut, cut), u32::from(nth));
    }
}
