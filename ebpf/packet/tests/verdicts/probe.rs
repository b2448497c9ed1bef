//! What health probes say first, and what games say that must not be taken for it.

use dormouse_packet::probe::is_probe;

use crate::common;

#[test]
fn http_https_and_grpc_are_probes() {
    for start in [
        &b"GET /healthz HTTP/1.1\r\nHost: 10.42.0.5:8080\r\nUser-Agent: kube-probe/1.33\r\n\r\n"[..],
        b"HEAD / HTTP/1.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ] {
        assert!(common::with_window(start, is_probe), "{start:?}");
    }
}

#[test]
fn games_are_not() {
    for start in [
        // Minecraft's handshake for a login and for a status, its legacy ping.
        &b"\x10\x00\xfd\x05\x09localhost\x63\xdd\x02"[..],
        b"\x10\x00\xfd\x05\x09localhost\x63\xdd\x01\x01\x00",
        b"\xfe\x01\xfa",
        // Terraria's, a line of text, what is too short to tell.
        b"\x0f\x00\x01\x0bTerraria279",
        b"login anna\n",
        b"GET",
        b"",
    ] {
        assert!(!common::with_window(start, is_probe), "{start:?}");
    }
}
