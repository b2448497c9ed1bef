//! Minecraft Java Edition: the handshake, the legacy pings before it, and a PROXY header before either.
//!
//! From minecraft.wiki, "Java Edition protocol/Packets" (Handshake) and "…/Server List Ping". A frame is a
//! VarInt length of at most three bytes, then that many bytes; the first one must hold VarInt id 0, VarInt
//! protocol version, a string (VarInt length in bytes, UTF-8), u16 port, VarInt next state, and nothing
//! else. The host string may be long: Forge and BungeeCord append to it. What vanilla accepts is accepted:
//! VarInts that are longer than they need be too, and any protocol version.
//!
//! Because nothing may follow the next state in its frame, the two lengths must agree: most of what is not
//! the protocol is found out before its end has come.
//!
//! A stream that is cut after `FE` or `FE 01` is a whole ping of 1.3 or 1.5, and also the start of a
//! handshake of 254, 382, … bytes. It is called a ping, since vanilla answers and closes at that point.

use crate::window::WINDOW;
use crate::{Class, Window, proxy};

const STATUS: u32 = 1;
const LOGIN: u32 = 2;
/// Since 1.20.5: a login that another server sent here.
const TRANSFER: u32 = 3;

/// Id, version and host length of one byte each, no host, port, next state.
const SHORTEST: usize = 6;
const PORT: usize = 2;

const LEGACY_PING: u8 = 0xfe;
const LEGACY_PING_1_4: u8 = 0x01;
/// The plugin message that follows in 1.6.
const LEGACY_PLUGIN: u8 = 0xfa;

/// What a stream is. What is undecided when the window is full is a player: nobody but a proxy that forwards
/// a login writes that much into a handshake.
#[inline(always)]
pub fn classify(window: &Window<'_>) -> Class {
    let class = match proxy::skip(window) {
        Ok(start) => ping_or_handshake(window, start),
        Err(class) => class,
    };
    match class {
        Class::Undecided if window.total() >= WINDOW => Class::Player,
        class => class,
    }
}

#[inline(always)]
fn ping_or_handshake(window: &Window<'_>, start: usize) -> Class {
    if let Some(LEGACY_PING) = window.byte(start) {
        match (window.byte(start + 1), window.byte(start + 2)) {
            (None, _) | (Some(LEGACY_PING_1_4), None | Some(LEGACY_PLUGIN)) => return Class::Query,
            _ => {}
        }
    }
    match handshake(window, start) {
        Ok(STATUS) => Class::Query,
        Ok(LOGIN | TRANSFER) => Class::Player,
        Ok(_) => Class::Noise,
        Err(class) => class,
    }
}

/// The next state that the frame at `start` asks for.
#[inline(always)]
fn handshake(window: &Window<'_>, start: usize) -> Result<u32, Class> {
    let length = VarInt::read(window, start, 3)?;
    let frame = length.value as usize;
    let body = length.end;
    if frame < SHORTEST {
        return Err(Class::Noise);
    }
    let id = VarInt::read(window, body, 5)?;
    if id.value != 0 {
        return Err(Class::Noise);
    }
    let version = VarInt::read(window, id.end, 5)?;
    let host = VarInt::read(window, version.end, 5)?;
    let next = host.end + host.value as usize + PORT;
    let left = (body + frame).wrapping_sub(next);
    if left.wrapping_sub(1) >= 5 {
        return Err(Class::Noise);
    }
    let state = VarInt::read(window, next, 5)?;
    if state.end == body + frame { Ok(state.value) } else { Err(Class::Noise) }
}

struct VarInt {
    value: u32,
    /// Where the next field starts.
    end: usize,
}

impl VarInt {
    /// The VarInt at `at`, of at most `longest` bytes.
    ///
    /// Without a branch a byte: five fields with five ways out each would be 3,125 paths to verify.
    #[inline(always)]
    fn read(window: &Window<'_>, at: usize, longest: usize) -> Result<Self, Class> {
        let mut value = 0;
        let mut len = 1;
        let mut more = 1;
        let mut i = 0;
        while i < longest {
            let byte = u32::from(window.unchecked(at + i));
            value |= (byte & 0x7f).wrapping_mul(more) << (7 * i);
            more &= byte >> 7;
            len += more as usize;
            i += 1;
        }
        let all_valid = at + longest <= window.len();
        if more != 0 {
            return Err(if all_valid { Class::Noise } else { Class::Undecided });
        }
        let end = at + len;
        if end > window.len() { Err(Class::Undecided) } else { Ok(Self { value, end }) }
    }
}
