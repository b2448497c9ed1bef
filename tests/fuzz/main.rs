//! Fuzz targets: one a parser of what the network, a container, a game or a user wrote. `scripts/fuzz` builds
//! this with the compiler's coverage counters and names the target in `FUZZ_TARGET`; libFuzzer does the rest.
#![no_main]

mod packets;

use std::sync::OnceLock;

use dormouse_daemon::fuzz as daemon;
use libfuzzer_sys::{Corpus, fuzz_target};

/// Name, and what is given the bytes. The names are those of the folders in tests/fuzz/corpus.
const TARGETS: [(&str, fn(&[u8])); 15] = [
    ("headers", packets::headers),
    ("classify", packets::classify),
    ("replay", daemon::replay),
    ("record", daemon::record),
    ("node-file", |bytes| text(bytes, daemon::node_file)),
    ("server-file", |bytes| text(bytes, daemon::server_file)),
    ("profile", |bytes| text(bytes, daemon::profile)),
    ("overrides", |bytes| text(bytes, daemon::overrides)),
    ("request", daemon::request),
    ("rcon", daemon::rcon),
    ("status-answer", daemon::status_answer),
    ("settings", daemon::settings),
    ("undo-log", daemon::undo_log),
    ("kernel-text", daemon::kernel_text),
    ("netlink", daemon::netlink),
];

fn text(bytes: &[u8], target: fn(&str)) {
    if let Ok(text) = str::from_utf8(bytes) {
        target(text);
    }
}

fn target() -> fn(&[u8]) {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    *TARGET.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        let known = TARGETS.iter().find(|(known, _)| *known == name);
        known.unwrap_or_else(|| panic!("no target {name:?}; there are {:?}", TARGETS.map(|(name, _)| name))).1
    })
}

fuzz_target!(|bytes: &[u8]| -> Corpus {
    target()(bytes);
    Corpus::Keep
});
