//! The first bytes that a client said, as a classifier may look at them.

/// How many bytes of a conversation's start are kept; what is still undecided after them is a player
/// (design §3). A power of two, so that a masked index is provably inside.
pub const WINDOW: usize = 512;

/// The start of a TCP stream, or one UDP datagram, cut to [`WINDOW`] bytes.
#[derive(Clone, Copy)]
pub struct Window<'a> {
    bytes: &'a [u8; WINDOW],
    len: usize,
    total: usize,
}

impl<'a> Window<'a> {
    /// `len` valid bytes, of `total` that the stream or datagram had so far.
    #[inline(always)]
    pub const fn new(bytes: &'a [u8; WINDOW], len: usize, total: usize) -> Self {
        Self { bytes, len, total }
    }

    /// Valid bytes.
    #[inline(always)]
    pub const fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes before the cut: a datagram's whole payload length, a stream's length so far.
    #[inline(always)]
    pub const fn total(&self) -> usize {
        self.total
    }

    /// The byte at `at`, or `None` past the end.
    #[inline(always)]
    pub const fn byte(&self, at: usize) -> Option<u8> {
        if at < self.len && at < WINDOW { Some(self.bytes[at & (WINDOW - 1)]) } else { None }
    }

    /// The byte at `at` without a branch, or any byte past the end: what is made of it must be thrown away
    /// when it reaches beyond [`len`](Self::len). For loops, where every branch would double the paths.
    #[inline(always)]
    pub const fn unchecked(&self, at: usize) -> u8 {
        self.bytes[at & (WINDOW - 1)]
    }

    /// The big-endian number at `at`.
    #[inline(always)]
    pub const fn u16(&self, at: usize) -> Option<u16> {
        match (self.byte(at), self.byte(at + 1)) {
            (Some(high), Some(low)) => Some(u16::from_be_bytes([high, low])),
            _ => None,
        }
    }

    /// The big-endian number at `at`.
    #[inline(always)]
    pub const fn u32(&self, at: usize) -> Option<u32> {
        match (self.u16(at), self.u16(at + 2)) {
            (Some(high), Some(low)) => Some((high as u32) << 16 | low as u32),
            _ => None,
        }
    }
}
