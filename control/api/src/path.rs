//! Names in addresses. A server's name contains `/`, so it is percent-encoded wherever it is one segment.

use std::fmt::Write;

/// One path segment or query value (RFC 3986 §2.3: only the unreserved characters stay as they are).
pub fn encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// `/v1/servers/{name}` and what follows.
pub fn server(name: &str, tail: &str) -> String {
    format!("/v1/servers/{}/{tail}", encode(name))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_is_one_segment() {
        assert_eq!(super::server("acme/survival 1", "why"), "/v1/servers/acme%2Fsurvival%201/why");
        assert_eq!(super::encode("ü%"), "%C3%BC%25");
    }
}
