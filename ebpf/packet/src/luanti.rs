//! Luanti (Minetest): reliable messages over UDP.
//!
//! From the comments in `src/network/mtp/internal.h` and the reading side in `src/network/mtp/threads.cpp`
//! of luanti-org/luanti; 5.6's `src/network/connection.h` has the same. A datagram is u32 protocol id, u16
//! peer id of the sender, u8 channel, then a packet: u8 type and what belongs to it. All numbers are
//! big-endian.
//!
//! A new client speaks as peer 0. Whatever it says, the server gives it a peer id (`SET_PEER_ID`), and only
//! under that id does a client go on: that is the protocol's own challenge. The public server list pings in
//! the same way and leaves with `DISCO` under the id that it was given, so a goodbye wakes nobody.

use crate::{Class, Window};

const PROTOCOL_ID: u32 = 0x4f45_7403;
const CHANNELS: u8 = 3;

/// `PEER_ID_INEXISTENT`: not known to the server yet.
const PEER_NEW: u16 = 0;
/// `PEER_ID_SERVER`: never a client's.
const PEER_SERVER: u16 = 1;

const HEADER: usize = 7;
const RELIABLE_HEADER: usize = 3;
const SPLIT_HEADER: usize = 7;

const CONTROL: u8 = 0;
const ORIGINAL: u8 = 1;
const SPLIT: u8 = 2;
const RELIABLE: u8 = 3;

const ACK: u8 = 0;
const PING: u8 = 2;
const DISCO: u8 = 3;

/// What one datagram is. Forging a player takes one invented peer id: see
/// [`Game::spoofable`](crate::Game::spoofable).
#[inline(always)]
pub fn classify(window: &Window<'_>) -> Class {
    let (Some(PROTOCOL_ID), Some(peer), Some(channel)) = (window.u32(0), window.u16(4), window.byte(6))
    else {
        return Class::Noise;
    };
    if channel >= CHANNELS || peer == PEER_SERVER {
        return Class::Noise;
    }
    if peer == PEER_NEW {
        return Class::Query;
    }
    match window.byte(HEADER) {
        Some(RELIABLE) => inner(window, HEADER + RELIABLE_HEADER),
        Some(_) => inner(window, HEADER),
        None => Class::Noise,
    }
}

/// The packet at `at` of a sender that has its peer id; a reliable one inside a reliable one is refused, as
/// by the server.
#[inline(always)]
fn inner(window: &Window<'_>, at: usize) -> Class {
    match window.byte(at) {
        Some(CONTROL) => match window.byte(at + 1) {
            Some(ACK | PING | DISCO) => Class::Query,
            _ => Class::Noise,
        },
        // Everything that a client says is a u16 command and its arguments, from TOSERVER_INIT on.
        Some(ORIGINAL) if window.u16(at + 1).is_some() => Class::Player,
        Some(SPLIT) if window.byte(at + SPLIT_HEADER).is_some() => Class::Player,
        _ => Class::Noise,
    }
}
