//! What a packet says about its conversation: the class, decided at its first payload and remembered.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use dormouse_abi::server::{Flow, FlowKey, ServerRef, flow_flag, server_flag};
use dormouse_packet::{
    Class, Game, Window, classify,
    headers::{self, ACK, Packet, RST, SYN},
    probe::is_probe,
    window::WINDOW,
};

use crate::{
    maps::{FLOWS, PREFIXES, PROBERS, Prefix, SCRATCH, count_unparsed},
    skb::{Skb, bounded, opaque},
};

/// A flow that was silent longer than this is judged anew, nanoseconds.
const FORGET_NS: u64 = 60_000_000_000;

/// What the door needs to know of one packet.
#[derive(Clone, Copy)]
pub struct Look {
    pub class: Class,
    pub has_payload: bool,
    /// A connection that stood before the server dozed.
    pub older_than_doze: bool,
    /// The client's ACK that completes a handshake (no payload yet).
    pub completes_handshake: bool,
}

impl Look {
    const NOTHING: Self = Self {
        class: Class::Undecided,
        has_payload: false,
        older_than_doze: false,
        completes_handshake: false,
    };
}

#[inline(always)]
pub fn key(skb: Skb, server: &ServerRef, packet: &Packet) -> Option<FlowKey> {
    Some(FlowKey {
        address: headers::source_address(&skb, packet)?,
        slot: server.slot,
        port: packet.source_port,
        server_port: packet.destination_port,
        protocol: packet.protocol,
        pad: [0; 3],
    })
}

/// Looks the packet's flow up, judges it if it can be judged, and remembers the outcome.
#[inline(always)]
pub fn look(skb: Skb, packet: &Packet, server: &ServerRef, key: &FlowKey) -> Look {
    if packet.protocol == headers::UDP {
        datagram(skb, packet, server, key)
    } else {
        segment(skb, packet, server, key)
    }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn datagram(skb: Skb, packet: &Packet, server: &ServerRef, key: &FlowKey) -> Look {
    let now = now();
    let (at, len) = headers::datagram(packet);
    let (mut seen, mut known) = (0, Class::Undecided);
    let found = FLOWS.get_ptr_mut(key);
    if let Some(flow) = found {
        // SAFETY: a live map value; two CPUs may write it at once, and either outcome is a good guess.
        unsafe {
            if now.wrapping_sub((*flow).last_ns) < FORGET_NS {
                seen = (*flow).seen;
                known = Class::from_number((*flow).class);
            }
        }
    }
    // A burst is one packet here and several datagrams, which are judged by the first of them.
    let nth = seen.saturating_add(skb.segments());
    let each = skb.gso_size();
    let len = if each != 0 && each < len { each } else { len };
    let class =
        if known == Class::Player { Class::Player } else { judge_datagram(skb, server.game, at, len, nth) };
    if let Some(flow) = found {
        // SAFETY: as above.
        unsafe {
            if seen == 0 {
                (*flow).first_ns = now;
            }
            (*flow).last_ns = now;
            (*flow).seen = nth;
            (*flow).class = class as u8;
        }
    } else {
        let flow = Flow {
            first_ns: now,
            last_ns: now,
            start: 0,
            seen: nth,
            class: class as u8,
            flags: 0,
            with_syn: 0,
            pad: [0; 4],
        };
        let _ = FLOWS.insert(key, flow, 0);
    }
    Look { class, has_payload: true, ..Look::NOTHING }
}

#[inline(always)]
fn judge_datagram(skb: Skb, game: u8, at: u32, len: u32, nth: u32) -> Class {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return Class::Undecided };
    let held = fill(skb, at, scratch, 0, len);
    judge(scratch, held, len, game, nth)
}

#[inline(always)]
fn segment(skb: Skb, packet: &Packet, server: &ServerRef, key: &FlowKey) -> Look {
    let Some(mut segment) = headers::segment(&skb, packet) else {
        count_unparsed();
        return Look::NOTHING;
    };
    let is_syn = segment.flags & SYN != 0;
    if is_syn {
        if segment.flags & ACK != 0 {
            return Look::NOTHING;
        }
        begin(key, &segment);
        if segment.payload_len == 0 {
            return Look::NOTHING;
        }
        // Fast Open: the bytes are judged and remembered, and wake nobody yet, since anybody can invent a SYN.
        segment.sequence = segment.sequence.wrapping_add(1);
    }
    // A reset may carry a reason in words (RFC 9293 §3.5.3): nobody who wants in.
    let has_payload = segment.payload_len != 0 && segment.flags & RST == 0;
    let Some(flow) = FLOWS.get_ptr_mut(key) else {
        // Mid-stream of a connection whose start nobody saw: never judged by its bytes. The daemon asks the
        // server's kernel whether the connection exists before it believes either way.
        if has_payload {
            let now = now();
            let flow = Flow {
                first_ns: now,
                last_ns: now,
                start: 0,
                seen: 0,
                class: 0,
                flags: 0,
                with_syn: 0,
                pad: [0; 4],
            };
            let _ = FLOWS.insert(key, flow, 0);
        }
        return Look { has_payload, ..Look::NOTHING };
    };
    // SAFETY: a live map value; a race of two CPUs on one flow leaves one of two good guesses.
    let seen_flow = unsafe { *flow };
    let older_than_doze = seen_flow.flags & flow_flag::OLDER_THAN_DOZE != 0;
    let from_start = seen_flow.flags & flow_flag::FROM_START != 0;
    if !has_payload {
        let completes_handshake = from_start
            && seen_flow.first_ns == 0
            && segment.flags & (ACK | RST) == ACK
            && (segment.sequence == seen_flow.start
                || segment.sequence == seen_flow.start.wrapping_add(u32::from(seen_flow.with_syn)));
        // Only bytes that came with the SYN can have made it a player's by now.
        let class = Class::from_number(seen_flow.class);
        return Look { class, completes_handshake, older_than_doze, has_payload: false };
    }
    let now = now();
    let mut class = Class::from_number(seen_flow.class);
    let mut held = seen_flow.seen;
    if class == Class::Undecided && from_start {
        (class, held) = judge_stream(skb, server, key, &segment, seen_flow.start, seen_flow.seen);
    }
    // SAFETY: as above.
    unsafe {
        if seen_flow.first_ns == 0 && !is_syn {
            (*flow).first_ns = now;
        }
        (*flow).last_ns = now;
        (*flow).seen = held;
        (*flow).class = class as u8;
    }
    if is_syn {
        return Look::NOTHING;
    }
    Look { class, has_payload: true, older_than_doze, completes_handshake: false }
}

/// A SYN: what was known of these ports is over.
#[inline(always)]
fn begin(key: &FlowKey, segment: &headers::Segment) {
    let flow = Flow {
        first_ns: 0,
        last_ns: now(),
        start: segment.sequence.wrapping_add(1),
        seen: 0,
        class: Class::Undecided as u8,
        flags: flow_flag::FROM_START,
        with_syn: segment.payload_len as u16,
        pad: [0; 4],
    };
    let _ = FLOWS.insert(key, flow, 0);
}

/// Judges a stream by its first contiguous bytes; also gives back how many of them are held now.
#[inline(always)]
fn judge_stream(
    skb: Skb,
    server: &ServerRef,
    key: &FlowKey,
    segment: &headers::Segment,
    start: u32,
    held: u32,
) -> (Class, u32) {
    let offset = segment.sequence.wrapping_sub(start);
    if offset > held || offset as usize >= WINDOW {
        // A gap: what fills it will be judged with this behind it. Past the window everyone is a player.
        let class = if held as usize >= WINDOW { Class::Player } else { Class::Undecided };
        return (class, held);
    }
    if offset == 0 && held == 0 {
        let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return (Class::Player, held) };
        let now_held = fill(skb, segment.payload, scratch, 0, segment.payload_len);
        if starts_as_probe(scratch, now_held) && is_prober(skb, server) {
            return (Class::Probe, now_held);
        }
        let class = judge(scratch, now_held, segment.payload_len, server.game, 1);
        if class == Class::Undecided {
            // SAFETY: the scratch element is this CPU's own for the program's run.
            let _ = PREFIXES.insert(key, unsafe { &*scratch }, 0);
        }
        return (class, now_held);
    }
    // The first bytes made room for others': who can't be judged any more is let in.
    let Some(prefix) = PREFIXES.get_ptr_mut(key) else { return (Class::Player, held) };
    let end = fill(skb, segment.payload, prefix, offset, segment.payload_len);
    let held = if end > held { end } else { held };
    (judge(prefix, held, held, server.game, 1), held)
}

/// Copies payload to `offset` of the window; gives back where the held bytes end.
#[inline(always)]
fn fill(skb: Skb, at: u32, prefix: *mut Prefix, offset: u32, len: u32) -> u32 {
    let offset = opaque(u64::from(offset)) & (WINDOW as u64 - 1);
    let len = if len > WINDOW as u32 { WINDOW as u32 } else { len };
    let Some(len) = bounded(len, WINDOW as u64) else { return offset as u32 };
    // SAFETY: offset < WINDOW and len <= WINDOW, and the buffer is twice the window.
    let into = unsafe { (&raw mut (*prefix).bytes).cast::<u8>().add(offset as usize) };
    if !skb.copy_to(at, into, len as u32) {
        return offset as u32;
    }
    let end = (offset + len) as u32;
    if end > WINDOW as u32 { WINDOW as u32 } else { end }
}

/// Whether a process sent this that the operator calls a prober. On roads that cross no veth nobody can tell:
/// there the kernel knows the receiver only.
#[inline(always)]
pub fn is_prober(skb: Skb, server: &ServerRef) -> bool {
    if server.flags & server_flag::SIGNAL_ONLY != 0 {
        return false;
    }
    let sender = skb.cgroup_id();
    // SAFETY: the value is not looked at.
    sender != 0 && unsafe { PROBERS.get(&sender) }.is_some()
}

#[inline(always)]
fn window<'a>(prefix: *const Prefix, held: u32, total: u32) -> Window<'a> {
    // SAFETY: callers pass a live map value; its first WINDOW bytes are in bounds of it.
    let bytes = unsafe { &*(&raw const (*prefix).bytes).cast::<[u8; WINDOW]>() };
    Window::new(bytes, held as usize, total as usize)
}

#[inline(always)]
fn starts_as_probe(prefix: *const Prefix, held: u32) -> bool {
    is_probe(&window(prefix, held, held))
}

/// A function of its own: the classifiers are verified once a call, not once a caller's path.
#[inline(never)]
fn judge(prefix: *const Prefix, held: u32, total: u32, game: u8, nth: u32) -> Class {
    classify(Game::from_number(game), &window(prefix, held, total), nth)
}
