//! Teeworlds 0.6 and 0.7, and DDNet, which speaks both.
//!
//! From `src/engine/shared/network*.{h,cpp}` of teeworlds/teeworlds (0.6.4, 0.6.5, 0.7.5) and ddnet/ddnet.
//! A datagram is u8 flags and ack, u8 ack, u8 number of chunks, then what the flags say:
//!
//! | bits of the first byte | 0.6 (DDNet) | 0.7 |
//! | --- | --- | --- |
//! | `0x80` | compressed | |
//! | `0x40` | resend | |
//! | `0x20` | without a connection | the same |
//! | `0x10` | control | compressed |
//! | `0x08` | 0.6.5 only: u32 token after the header | resend |
//! | `0x04` | | control |
//! | `0x03` | ack | ack; version 1 without a connection |
//!
//! 0.7 always has a u32 token after the header; DDNet appends its own to every packet of 0.6. Where a
//! server has a challenge, the client asks first (`TOKEN` in 0.7, `CONNECT` with or without the magic `TKEN`
//! in 0.6) and shows what it was given next (`CONNECT` with a token, `ACCEPT`).
//!
//! What is forgeable: a token is checked by nobody but the server, so an invented one passes; plain 0.6 up
//! to 0.6.4 has no token at all, and its `ACCEPT` is four bytes that anybody can write. See
//! [`Game::spoofable`](crate::Game::spoofable).

use crate::{Class, Window};

/// `NET_MAX_PACKETSIZE`: servers drop what is longer.
const LONGEST: usize = 1400;
/// Of 0.6; 0.7 has a token behind it.
const HEADER: usize = 3;
const TOKEN: usize = 4;

const CONNLESS: u8 = 0x20;
const SIX_COMPRESSED: u8 = 0x80;
const SIX_CONTROL: u8 = 0x10;
const SIX_TOKEN: u8 = 0x08;
/// 0.6.5, once it has a token.
const SIX_TOKEN_CONTROL: u8 = SIX_CONTROL | SIX_TOKEN;
/// Bits that no data packet of 0.6 has.
const SIX_NOT_DATA: u8 = 0x34;
const SEVEN_COMPRESSED: u8 = 0x10;
const SEVEN_CONTROL: u8 = 0x04;
/// Bits that no data packet of 0.7 has.
const SEVEN_NOT_DATA: u8 = 0xe4;
const FLAGS: u8 = 0xfc;

const KEEPALIVE: u8 = 0;
const CONNECT: u8 = 1;
/// `NET_CTRLMSG_ACCEPT` of 0.6, from the client. The server's answer is 2 in both, so never a client's.
const ACCEPT: u8 = 3;
const CLOSE: u8 = 4;
/// 0.7 only.
const TOKEN_REQUEST: u8 = 5;

/// The token of who has none (`NET_TOKEN_NONE`, `NET_SECURITY_TOKEN_UNKNOWN`).
const NO_TOKEN: u32 = u32::MAX;

/// Vital chunks have a third header byte.
const CHUNK_VITAL: u8 = 0x40;
/// As many as a client puts into one packet; 255 are allowed, so 15 of 16 random bytes are not a count.
const MOST_CHUNKS: u8 = 16;

/// What one datagram is.
#[inline(always)]
pub fn classify(window: &Window<'_>) -> Class {
    let (Some(first), Some(chunks)) = (window.byte(0), window.byte(2)) else {
        return Class::Noise;
    };
    if window.total() > LONGEST {
        return Class::Noise;
    }
    if first & CONNLESS != 0 {
        return without_connection(window, first);
    }
    match (first & FLAGS, chunks) {
        (SEVEN_CONTROL, 0) => control_seven(window),
        (SIX_CONTROL, 0) => control_six(window),
        // 0.6.5 has nothing else to say by control once it has a token: its next step is a data packet.
        (SIX_TOKEN_CONTROL, 0) => match window.byte(HEADER + TOKEN) {
            Some(KEEPALIVE | CLOSE) => Class::Query,
            _ => Class::Noise,
        },
        (_, 1..=MOST_CHUNKS) if is_data(window, first, chunks) => Class::Player,
        _ => Class::Noise,
    }
}

/// Requests of server browsers and of the master server. Other games' queries (Quake, Source) start with
/// the same bytes, so the name is looked at.
#[inline(always)]
fn without_connection(window: &Window<'_>, first: u8) -> Class {
    let at = if first & 3 == 1 { HEADER + 6 } else { HEADER + 3 };
    if window.u32(at) != Some(u32::MAX) {
        return Class::Noise;
    }
    let Some(name) = window.u32(at + 4) else {
        return Class::Noise;
    };
    match &name.to_be_bytes() {
        b"gie3" | b"fstd" | b"fw??" | b"fwok" | b"fwer" | b"chal" => Class::Query,
        _ => Class::Noise,
    }
}

#[inline(always)]
fn control_seven(window: &Window<'_>) -> Class {
    match (window.u32(HEADER), window.byte(HEADER + TOKEN)) {
        (_, Some(TOKEN_REQUEST | KEEPALIVE | CLOSE)) | (Some(NO_TOKEN), Some(CONNECT)) => Class::Query,
        (Some(_), Some(CONNECT)) => Class::Player,
        _ => Class::Noise,
    }
}

#[inline(always)]
fn control_six(window: &Window<'_>) -> Class {
    match (window.byte(HEADER), window.u32(HEADER + 1)) {
        (Some(CONNECT | KEEPALIVE | CLOSE), _) | (Some(ACCEPT), Some(NO_TOKEN)) => Class::Query,
        (Some(ACCEPT), _) => Class::Player,
        _ => Class::Noise,
    }
}

/// Whether this can be a packet of a connected client: the only sign of a player whose `ACCEPT` was lost,
/// or whose flow was forgotten.
#[inline(always)]
fn is_data(window: &Window<'_>, first: u8, chunks: u8) -> bool {
    let six = first & SIX_NOT_DATA == 0 && {
        let at = if first & SIX_TOKEN == 0 { HEADER } else { HEADER + TOKEN };
        holds_chunks(window, at, chunks, first & SIX_COMPRESSED != 0, 4, TOKEN)
    };
    let seven = first & SEVEN_NOT_DATA == 0
        && !matches!(window.u32(HEADER), None | Some(NO_TOKEN))
        && holds_chunks(window, HEADER + TOKEN, chunks, first & SEVEN_COMPRESSED != 0, 6, 0);
    six || seven
}

/// Whether the chunks at `at` fit into the datagram. The low `split` bits of a chunk's length are in its
/// second byte; a token of `tail` bytes may follow the last one. Compressed ones cannot be looked into.
#[inline(always)]
fn holds_chunks(
    window: &Window<'_>,
    at: usize,
    chunks: u8,
    compressed: bool,
    split: u32,
    tail: usize,
) -> bool {
    let (Some(high), Some(low)) = (window.byte(at), window.byte(at + 1)) else {
        return false;
    };
    if compressed {
        return true;
    }
    let header = if high & CHUNK_VITAL == 0 { 2 } else { 3 };
    let size = (high as usize & 0x3f) << split | low as usize & ((1 << split) - 1);
    let end = at + header + size;
    let total = window.total();
    if chunks == 1 {
        size > 0 && (end == total || end + tail == total)
    } else {
        size > 0 && end + 2 * (chunks as usize - 1) <= total
    }
}
