//! The PROXY protocol header that a load balancer puts before a stream, versions 1 and 2.
//!
//! From HAProxy's `doc/proxy-protocol.txt`, sections 2.1 and 2.2.

use crate::{Class, Window};

const V1: [u8; 6] = *b"PROXY ";
/// The longest version 1 header, with its CR LF.
const V1_LONGEST: usize = 107;

const V2: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, u16 length of the rest.
const V2_HEADER: usize = 16;

/// Where the stream itself starts.
///
/// # Errors
/// [`Class::Undecided`] while the header is incomplete, [`Class::Noise`] when it is none.
#[inline(always)]
pub fn skip(window: &Window<'_>) -> Result<usize, Class> {
    match window.byte(0) {
        None => Err(Class::Undecided),
        Some(first) if first == V1[0] => match matches(window, &V1) {
            Match::No => Ok(0),
            Match::Yet => Err(Class::Undecided),
            Match::Yes => skip_v1(window),
        },
        // Less than the signature is read as the stream itself: "\r\n\r\n" is what scanners send, while a
        // proxy's header comes in one segment (section 2).
        Some(first) if first == V2[0] => match matches(window, &V2) {
            Match::No | Match::Yet => Ok(0),
            Match::Yes => skip_v2(window),
        },
        Some(_) => Ok(0),
    }
}

enum Match {
    No,
    /// As far as there are bytes.
    Yet,
    Yes,
}

#[inline(always)]
fn matches<const N: usize>(window: &Window<'_>, expected: &[u8; N]) -> Match {
    let mut i = 0;
    while i < N {
        match window.byte(i) {
            None => return Match::Yet,
            Some(byte) if byte != expected[i] => return Match::No,
            Some(_) => i += 1,
        }
    }
    Match::Yes
}

/// A line of text. Its end is counted out without a branch a byte, so that the verifier follows one path
/// with an unknown end instead of a hundred with a known one.
#[inline(always)]
fn skip_v1(window: &Window<'_>) -> Result<usize, Class> {
    let mut end = V1.len();
    let mut found = 0;
    let mut i = V1.len();
    while i < V1_LONGEST - 1 {
        // One for a carriage return, nothing for all others.
        found |= (256 - usize::from(window.unchecked(i) ^ b'\r')) >> 8;
        end += 1 - found;
        i += 1;
    }
    match (window.byte(end), window.byte(end + 1)) {
        (Some(b'\r'), Some(b'\n')) => Ok(end + 2),
        (Some(b'\r'), None) => Err(Class::Undecided),
        (None, _) if window.len() < V1_LONGEST => Err(Class::Undecided),
        _ => Err(Class::Noise),
    }
}

#[inline(always)]
fn skip_v2(window: &Window<'_>) -> Result<usize, Class> {
    match (window.byte(12), window.u16(14)) {
        (Some(version), _) if version >> 4 != 2 => Err(Class::Noise),
        (Some(_), Some(rest)) => Ok(V2_HEADER + rest as usize),
        _ => Err(Class::Undecided),
    }
}
