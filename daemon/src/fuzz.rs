//! What the fuzz targets (tests/fuzz) call: every parser of bytes that somebody else chose. Only in a build
//! with `--cfg fuzzing` (scripts/fuzz); each function panics when a promise is broken, and does nothing else.

use std::path::Path;

use crate::{
    act::throttle::CpuMax,
    config::{self, Node, Profile, ServerFile},
    discover::{self, netlink::Message, selector::Selector},
    door, evidence, memory, socket, undo,
};

/// A frame that goes back to its server: two bytes of segment size, the frame.
pub fn replay(bytes: &[u8]) {
    if let Some((gso_size, frame)) = bytes.split_first_chunk::<2>() {
        door::fuzz_replay(u32::from(u16::from_le_bytes(*gso_size)), frame);
    }
}

/// A record of the ring.
pub fn record(bytes: &[u8]) {
    door::fuzz_record(bytes);
}

pub fn node_file(text: &str) {
    let _ = Node::parse(Path::new("dormoused.toml"), text);
}

pub fn server_file(text: &str) {
    if let Ok(server) = ServerFile::parse(Path::new("server.toml"), text) {
        let shown = server.select.to_string();
        assert_eq!(shown.parse::<Selector>(), Ok(server.select), "a selector reads what it shows");
    }
}

pub fn profile(text: &str) {
    let _ = Profile::parse("fuzzed", "a file", text);
}

pub fn overrides(text: &str) {
    config::fuzz_overrides(text);
}

/// A request on the socket: a line of query, the body.
pub fn request(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    socket::fuzz(&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
}

/// What a server says on its RCON port.
pub fn rcon(bytes: &[u8]) {
    evidence::fuzz_rcon(bytes);
}

/// What a server answers to a status ping.
pub fn status_answer(bytes: &[u8]) {
    evidence::fuzz_status(bytes);
}

/// A game's own settings: a byte for the format, the file.
pub fn settings(bytes: &[u8]) {
    if let Some((format, file)) = bytes.split_first() {
        let name = ["server.properties", "spigot.yml", "ops.json"][usize::from(format % 3)];
        evidence::fuzz_settings(Path::new(name), file, "settings.timeout-time");
        evidence::fuzz_settings(Path::new(name), file, "max-tick-time");
    }
}

pub fn undo_log(bytes: &[u8]) {
    undo::fuzz(bytes);
}

/// What the kernel writes for us with names and values in it that a container chose.
pub fn kernel_text(bytes: &[u8]) {
    memory::regions::fuzz(bytes);
    if let Ok(text) = str::from_utf8(bytes) {
        discover::process::fuzz(text);
        let _ = text.parse::<CpuMax>();
    }
}

/// Netlink: devices and sockets of a container's namespace, whose names and ends it chose.
pub fn netlink(bytes: &[u8]) {
    discover::link::fuzz(&Message { kind: 0, body: bytes.to_vec() });
    discover::sockets::fuzz(bytes);
}
