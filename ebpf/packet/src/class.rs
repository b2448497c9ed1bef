//! What a packet of a game's client is: the verdict everything else hangs on.

use crate::{Window, luanti, minecraft, teeworlds};

/// What a conversation turned out to be. The numbers are the ones in the maps.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Not enough bytes yet.
    Undecided = 0,
    /// Somebody who really wants in: the only class that wakes.
    Player = 1,
    /// A status ping or server-list query: answered, never wakes. Also a protocol's own challenge
    /// (Luanti's peer id, a Teeworlds token): who comes back with the answer is a player.
    Query = 2,
    /// A health probe of the node's own: the sender's cgroup and its payload say so, never an address (see
    /// [`probe`](crate::probe)). Answered as a query is, never wakes.
    Probe = 3,
    /// Proven not to be the game's protocol.
    Noise = 4,
}

impl Class {
    /// The class of a number in a map; an unknown number is undecided.
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Player,
            2 => Self::Query,
            3 => Self::Probe,
            4 => Self::Noise,
            _ => Self::Undecided,
        }
    }
}

/// The protocols that can be told apart. The numbers are the ones in the maps.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Game {
    /// Any payload is a player.
    GenericTcp = 0,
    /// A second datagram is a player: spoofable, so its wakes are rate-capped.
    GenericUdp = 1,
    MinecraftJava = 2,
    Luanti = 3,
    /// Teeworlds 0.6 and 0.7, and DDNet.
    Teeworlds = 4,
}

impl Game {
    /// The game of a number in a map; an unknown number is generic, so that nobody is kept out.
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::GenericUdp,
            2 => Self::MinecraftJava,
            3 => Self::Luanti,
            4 => Self::Teeworlds,
            _ => Self::GenericTcp,
        }
    }

    /// Whether somebody who has received nothing from the server can be taken for a player, so that wakes
    /// need a rate cap.
    ///
    /// Over TCP no: the server's kernel finished the handshake before the first payload. Over UDP yes, also
    /// where the protocol has a challenge: the server's secret (Luanti's peer id, a Teeworlds token) is not
    /// known here, so an answer to it is recognised by its shape, and an invented one looks the same. To learn
    /// it from the server's answers would prove little: Luanti counts its peer ids up from 2
    /// (`Connection::createPeer`), so who asks once knows the next one's, and Teeworlds up to 0.6.4 has no token.
    pub const fn spoofable(self) -> bool {
        match self {
            Self::GenericTcp | Self::MinecraftJava => false,
            Self::GenericUdp | Self::Luanti | Self::Teeworlds => true,
        }
    }
}

/// What a client's first bytes make of it. `nth` is the number of the datagram in its flow, from 1; a
/// stream always says 1.
///
/// More bytes of a stream never change a verdict other than [`Class::Undecided`], but for a stream of
/// Minecraft that is cut where vanilla sees a whole legacy ping (see [`minecraft`]), or inside the twelve
/// bytes that start a PROXY header of version 2.
#[inline(always)]
pub fn classify(game: Game, window: &Window<'_>, nth: u32) -> Class {
    match game {
        Game::GenericTcp if window.is_empty() => Class::Undecided,
        Game::GenericUdp if nth < 2 => Class::Undecided,
        Game::GenericTcp | Game::GenericUdp => Class::Player,
        Game::MinecraftJava => minecraft::classify(window),
        Game::Luanti => after_challenge(luanti::classify(window), nth),
        Game::Teeworlds => after_challenge(teeworlds::classify(window), nth),
    }
}

/// Nobody answers a challenge with the first datagram of a flow: that one is let through as a question.
/// Every client repeats itself, so a player whose flow was forgotten is a player again one datagram later.
#[inline(always)]
const fn after_challenge(class: Class, nth: u32) -> Class {
    match class {
        Class::Player if nth < 2 => Class::Query,
        class => class,
    }
}
