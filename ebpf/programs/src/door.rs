//! The door: every packet toward a server, at the egress of its veth's host side.
//!
//! Awake: one lookup, and once a tick (1 to 10 ms) a look at the flow. Asleep: the flow's class decides.

use aya_ebpf::{
    helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
    macros::classifier,
    programs::TcContext,
};
use dormouse_abi::{
    gate::{DRAINING, OPEN, PARK, in_flight, state as gate_state},
    node,
    server::{FlowKey, ServerKey, ServerRef, ServerState, server_flag},
};
use dormouse_packet::{
    Class,
    headers::{self, ETHERNET_LEN, Fragment, Packet, Source as _},
};

use crate::{
    flow::{self, Look},
    maps::{COUNTERS, SCRATCH, SERVERS, count, count_unparsed, gate, node_value, state},
    park::{Parked, fast_open, knock, park},
    skb::Skb,
    verdict::{Hook, Verdict},
};

/// The first device of every network namespace (net/core/dev.c).
const LOOPBACK_IFINDEX: u32 = 1;

#[classifier]
pub fn door_tcx(ctx: TcContext) -> i32 {
    toward_server(Skb::new(ctx.skb.skb)).action(Hook::Tcx)
}

#[classifier]
pub fn door_clsact(ctx: TcContext) -> i32 {
    toward_server(Skb::new(ctx.skb.skb)).action(Hook::Clsact)
}

/// What a bench compares the door with: the cost of being called at all.
#[classifier]
pub fn empty(_ctx: TcContext) -> i32 {
    aya_ebpf::bindings::TC_ACT_UNSPEC
}

#[inline(always)]
fn toward_server(skb: Skb) -> Verdict {
    judge(skb, ETHERNET_LEN, u64::from(skb.ifindex()))
}

/// The part that the TC hook and `cgroup_skb` share; the network header is at `at`.
#[inline(always)]
pub fn judge(skb: Skb, at: u32, scope: u64) -> Verdict {
    let packet = match headers::network(&skb, at, skb.ethertype()) {
        Ok(packet) => packet,
        Err(why) => {
            if why.is_broken() {
                count_unparsed();
            }
            return Verdict::Pass;
        }
    };
    if packet.fragment == Fragment::Later {
        return Verdict::Pass;
    }
    let key = ServerKey::new(scope, packet.destination_port, packet.protocol);
    // SAFETY: entries are replaced whole by user space; a copy of 8 aligned bytes is never torn.
    let Some(server) = (unsafe { SERVERS.get(&key) }) else { return Verdict::Pass };
    let server = *server;
    if server.flags & (server_flag::PATH_PROBE | server_flag::LOOPBACK_ONLY) != 0 {
        if server.flags & server_flag::PATH_PROBE != 0 {
            let Some(values) = state(server.slot) else { return Verdict::Pass };
            // SAFETY: a live map value; only our own daemon's test datagrams come here.
            unsafe { (*values).path_probes += 1 };
            return Verdict::Consume;
        }
        if skb.ifindex() != LOOPBACK_IFINDEX {
            return Verdict::Pass;
        }
    }
    let (Some(word), Some(counters)) = (gate(server.slot), COUNTERS.get_ptr_mut(server.slot)) else {
        return Verdict::Pass;
    };
    // SAFETY: a per-CPU element (programs of one CPU do not interrupt one another at this hook); an element of
    // an array that user space changes word by word; a helper without arguments, which the kernel inlines.
    unsafe {
        (*counters).packets += 1;
        (*counters).bytes += u64::from(skb.len());
        if gate_state(word.read_volatile()) == OPEN && (*counters).player_tick == bpf_jiffies64() {
            return Verdict::Pass;
        }
    }
    if look_closer(skb, at, &server) { Verdict::Consume } else { Verdict::Pass }
}

/// What few packets need: whose it is, and what to do with it; whether it is consumed. A function of its own,
/// which parses again, so that the others' way keeps its few values in registers.
#[inline(never)]
fn look_closer(skb: Skb, at: u32, server: &ServerRef) -> bool {
    let Ok(mut packet) = headers::network(&skb, at, skb.ethertype()) else { return false };
    let (Some(word), Some(values)) = (gate(server.slot), state(server.slot)) else { return false };
    if !forget_offsets(&mut packet) {
        return false;
    }
    let Some(key) = flow::key(skb, server, &packet) else { return false };
    // SAFETY: as in `judge`.
    if gate_state(unsafe { word.read_volatile() }) == OPEN {
        awake(skb, &packet, server, &key, values);
        return false;
    }
    asleep(skb, &packet, server, &key, values, word) == Verdict::Consume
}

/// Takes the offsets through memory whose content the verifier does not follow. It knows each chain of tags
/// and extension headers by its own constants, and would walk through all that follows once for each: on Linux
/// 6.1 that is more than the million instructions it is given.
#[inline(always)]
fn forget_offsets(packet: &mut Packet) -> bool {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return false };
    let words = scratch.cast::<u32>();
    // SAFETY: this CPU's own element, aligned and larger than three words.
    unsafe {
        words.write_volatile(packet.network);
        words.add(1).write_volatile(packet.transport);
        words.add(2).write_volatile(packet.end);
        packet.network = words.read_volatile();
        packet.transport = words.add(1).read_volatile();
        packet.end = words.add(2).read_volatile();
    }
    true
}

#[inline(always)]
fn awake(skb: Skb, packet: &Packet, server: &ServerRef, key: &FlowKey, values: *mut ServerState) {
    let look = flow::look(skb, packet, server, key);
    if look.has_payload && look.class == Class::Player {
        // SAFETY: a live map value, helpers without arguments; any of several CPUs' times is right.
        unsafe {
            (*values).last_player_ns = bpf_ktime_get_coarse_ns();
            count(server.slot, |counters| counters.player_tick = bpf_jiffies64());
        }
    }
}

#[inline(always)]
fn asleep(
    skb: Skb,
    packet: &Packet,
    server: &ServerRef,
    key: &FlowKey,
    values: *mut ServerState,
    word: *mut u64,
) -> Verdict {
    let replay = node_value(node::REPLAY_COOKIE);
    if replay != 0 && skb.socket_cookie() == replay {
        return Verdict::Pass;
    }
    let look = flow::look(skb, packet, server, key);
    if !look.has_payload {
        if look.completes_handshake && look.class == Class::Player {
            fast_open(skb, key, values);
        } else if look.completes_handshake {
            // A server that speaks first wakes by this; the daemon asks its kernel whether it is true.
            let class = if flow::is_prober(skb, server) { Class::Probe } else { Class::Undecided };
            knock(skb, key, values, class);
        }
        return Verdict::Pass;
    }
    if is_heartbeat_stale() {
        wanted(values, look.class);
        count(server.slot, |counters| counters.fail_open += 1);
        return Verdict::Pass;
    }
    if look.older_than_doze {
        if server.flags & server_flag::OLD_LINK_WAKES != 0 {
            wanted(values, Class::Player);
        }
        return Verdict::Pass;
    }
    tally(server.slot, look.class);
    // SAFETY: as in `judge`.
    let gate = gate_state(unsafe { word.read_volatile() });
    let parks = (gate == PARK || gate == DRAINING) && server.flags & server_flag::SIGNAL_ONLY == 0;
    // A TCP player's segment has nothing to wait for when nothing of the server's is held: the frozen server's
    // kernel queues it, and no replay stands between the thaw and the answer.
    // SAFETY: as in `judge`.
    let held = in_flight(unsafe { word.read_volatile() }) != 0;
    let is_ready = look.class == Class::Player && key.protocol == headers::TCP && !held;
    if parks && !is_ready {
        return hold(skb, key, values, look);
    }
    signal(skb, key, values, look);
    Verdict::Pass
}

/// On the way into or out of a doze, and on roads that can't park: pass, and say who it was.
#[inline(always)]
fn signal(skb: Skb, key: &FlowKey, values: *mut ServerState, look: Look) {
    match look.class {
        Class::Player => {
            wanted(values, Class::Player);
            // SAFETY: a live map value.
            unsafe { (*values).last_player_ns = bpf_ktime_get_coarse_ns() };
            knock(skb, key, values, Class::Player);
        }
        Class::Query | Class::Probe => asked(values),
        Class::Undecided | Class::Noise => {}
    }
}

#[inline(always)]
fn hold(skb: Skb, key: &FlowKey, values: *mut ServerState, look: Look) -> Verdict {
    match look.class {
        // What is proven not to be the game goes nowhere near the server: some die of it when they run
        // again. The daemon closes a TCP stream's connection in the server's kernel.
        Class::Noise => {
            count(key.slot, |counters| counters.refused += 1);
            knock(skb, key, values, Class::Noise);
            return Verdict::Consume;
        }
        Class::Player => wanted(values, Class::Player),
        Class::Query | Class::Probe => asked(values),
        Class::Undecided => {}
    }
    match park(skb, key, values, look.class) {
        Parked::Yes => {
            count(key.slot, |counters| counters.parked += 1);
            Verdict::Consume
        }
        Parked::GateMoved => {
            signal(skb, key, values, look);
            Verdict::Pass
        }
        Parked::NoRoom => {
            count(key.slot, |counters| counters.no_room += 1);
            // Room is short because somebody floods. Who may be a player passes and wakes; a query on UDP
            // would only push players out of the server's buffer.
            if look.class == Class::Undecided {
                wanted(values, Class::Undecided);
            }
            if look.class == Class::Query && key.protocol == headers::UDP {
                return Verdict::Consume;
            }
            Verdict::Pass
        }
    }
}

/// Sets the wake flag, which needs no room anywhere. The first packet's time stays.
#[inline(always)]
fn wanted(values: *mut ServerState, class: Class) {
    // SAFETY: a live map value; the daemon and the guard clear it with a plain store.
    unsafe {
        if (*values).wake_ns == 0 {
            (*values).wake_class = class as u64;
            (*values).wake_ns = bpf_ktime_get_ns();
        }
    }
}

#[inline(always)]
fn asked(values: *mut ServerState) {
    // SAFETY: as above.
    unsafe {
        if (*values).query_ns == 0 {
            (*values).query_ns = bpf_ktime_get_ns();
        }
    }
}

#[inline(always)]
fn tally(slot: u32, class: Class) {
    count(slot, |counters| match class {
        Class::Undecided => counters.undecided += 1,
        Class::Player => counters.player += 1,
        Class::Query => counters.query += 1,
        Class::Probe => counters.probe += 1,
        Class::Noise => counters.noise += 1,
    });
}

#[inline(always)]
fn is_heartbeat_stale() -> bool {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    now.wrapping_sub(node_value(node::HEARTBEAT_NS)) > node_value(node::STALE_AFTER_NS)
}
