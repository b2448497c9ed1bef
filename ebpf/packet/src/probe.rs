//! What a node's own health probes say first. Who says it is looked at elsewhere (the sender's cgroup): the same
//! bytes from a stranger are a scan.

use crate::Window;

/// `ContentType` handshake of a TLS record (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 22;
/// The first byte of a record's `legacy_record_version`.
const TLS_MAJOR: u8 = 3;

/// Whether a stream starts as `httpGet` (HTTP or HTTPS) and `grpc` probes of a kubelet do, or those of any
/// monitor of that kind: a request line (RFC 9112 §3), the preface of HTTP/2 (RFC 9113 §3.4), a TLS handshake.
/// A `tcpSocket` probe says nothing at all, and an `exec` probe sends nothing.
#[inline(always)]
pub fn is_probe(window: &Window<'_>) -> bool {
    let Some(start) = window.u32(0) else { return false };
    match &start.to_be_bytes() {
        b"GET " | b"HEAD" | b"PRI " => true,
        [first, second, ..] => *first == TLS_HANDSHAKE && *second == TLS_MAJOR,
    }
}
