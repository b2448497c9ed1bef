//! A packet in the kernel, as the packet crate reads it.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_get_socket_cookie, bpf_skb_cgroup_id, bpf_skb_load_bytes},
};
use core::{ffi::c_void, mem::MaybeUninit};
use dormouse_packet::headers::Source;

/// A context that the kernel handed to one of our programs, valid for its run.
#[derive(Clone, Copy)]
pub struct Skb(*mut __sk_buff);

impl Skb {
    #[inline(always)]
    pub fn new(skb: *mut __sk_buff) -> Self {
        Self(skb)
    }

    /// The network layer's EtherType, without an inline VLAN tag.
    #[inline(always)]
    pub fn ethertype(self) -> u16 {
        // SAFETY: the context is valid for the program's run (the verifier proves each access).
        u16::from_be(unsafe { (*self.0).protocol } as u16)
    }

    #[inline(always)]
    pub fn ifindex(self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).ifindex }
    }

    #[inline(always)]
    pub fn gso_size(self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).gso_size }
    }

    /// Datagrams or segments in a GSO burst; 1 for a plain packet.
    #[inline(always)]
    pub fn segments(self) -> u32 {
        // SAFETY: as above.
        let segments = unsafe { (*self.0).gso_segs };
        if segments == 0 { 1 } else { segments }
    }

    /// EtherType and content of the VLAN tag that stands beside the bytes, not in them; zeroes for none.
    #[inline(always)]
    pub fn vlan(self) -> (u16, u16) {
        // SAFETY: as above.
        unsafe {
            if (*self.0).vlan_present == 0 {
                return (0, 0);
            }
            (u16::from_be((*self.0).vlan_proto as u16), (*self.0).vlan_tci as u16)
        }
    }

    /// The cookie of the local socket that sent this; 0 for a forwarded packet.
    #[inline(always)]
    pub fn socket_cookie(self) -> u64 {
        // SAFETY: as above.
        unsafe { bpf_get_socket_cookie(self.0.cast()) }
    }

    /// The id of the cgroup v2 of the socket that this belongs to. At the egress of a veth's host side: the
    /// local sender's, 0 for a forwarded packet. At `cgroup_skb` ingress: the receiver's (Linux 5.8).
    #[inline(always)]
    pub fn cgroup_id(self) -> u64 {
        // SAFETY: as above.
        unsafe { bpf_skb_cgroup_id(self.0) }
    }

    /// Copies `len` bytes at `at` to `into`; whether it worked.
    ///
    /// `into` must have room for the largest `len`: the verifier refuses the program otherwise.
    #[inline(always)]
    pub fn copy_to(self, at: u32, into: *mut u8, len: u32) -> bool {
        // SAFETY: the verifier bounds `into` and `len` against the map value or record they point into.
        unsafe { bpf_skb_load_bytes(self.0.cast::<c_void>(), at, into.cast(), len) == 0 }
    }
}

impl Source for Skb {
    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).len }
    }

    #[inline(always)]
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the helper fills all N bytes or fails (and then zeroes them).
        unsafe {
            if bpf_skb_load_bytes(self.0.cast::<c_void>(), at, bytes.as_mut_ptr().cast(), N as u32) == 0 {
                Some(bytes.assume_init())
            } else {
                None
            }
        }
    }

    /// Straight from the packet where it is linear, which its first headers nearly always are: a helper call
    /// costs more than the whole rest of the parse.
    #[inline(always)]
    fn load_front<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        // SAFETY: the verifier turns both into packet pointers and proves the bound below; bytes have no
        // alignment.
        unsafe {
            let from = (*self.0).data as usize + at as usize;
            if from + N <= (*self.0).data_end as usize {
                return Some(*(from as *const [u8; N]));
            }
        }
        self.load(at)
    }
}

/// Stops LLVM from checking one copy of a number and using another, whose bound the verifier then lost.
#[inline(always)]
pub fn opaque(number: u64) -> u64 {
    let mut out = number;
    // SAFETY: adds zero. An empty asm! is rejected by the kernel's line-info check.
    unsafe { core::arch::asm!("{0} += 0", inout(reg) out, options(nomem, nostack, preserves_flags)) };
    out
}

/// A length of 1 to `max` bytes with both bounds known to the verifier; `None` outside of them. On Linux 6.1 it
/// learns no lower bound from `len != 0`, so that bound comes from an addition.
#[inline(always)]
pub fn bounded(len: u32, max: u64) -> Option<u64> {
    let less_one = opaque(u64::from(len).wrapping_sub(1));
    if less_one >= max { None } else { Some(opaque(less_one + 1)) }
}
