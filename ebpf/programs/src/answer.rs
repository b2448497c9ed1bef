//! From the server: when its first payload after a wake passes the door. Returns at once while nobody waits.

use aya_ebpf::{helpers::generated::bpf_ktime_get_ns, macros::classifier, programs::TcContext};
use dormouse_abi::{node, server::ServerKey};
use dormouse_packet::headers::{self, ETHERNET_LEN, Fragment};

use crate::{
    maps::{SERVERS, node_value, state},
    skb::Skb,
    verdict::{Hook, Verdict},
};

#[classifier]
pub fn answer(ctx: TcContext) -> i32 {
    if node_value(node::AWAITING_ANSWER) != 0 {
        note(Skb::new(ctx.skb.skb));
    }
    Verdict::Pass.action(Hook::Clsact)
}

#[inline(always)]
fn note(skb: Skb) {
    let Ok(packet) = headers::network(&skb, ETHERNET_LEN, skb.ethertype()) else { return };
    if packet.fragment == Fragment::Later {
        return;
    }
    let key = ServerKey::new(u64::from(skb.ifindex()), packet.source_port, packet.protocol);
    // SAFETY: as in the door.
    let Some(server) = (unsafe { SERVERS.get(&key) }) else { return };
    let Some(values) = state(server.slot) else { return };
    let payload = if packet.protocol == headers::UDP {
        headers::datagram(&packet).1
    } else {
        headers::segment(&skb, &packet).map_or(0, |segment| segment.payload_len)
    };
    // SAFETY: a live map value; the daemon sets `await_answer_ns` and reads `answer_ns` afterwards.
    unsafe {
        if payload != 0 && (*values).await_answer_ns != 0 {
            (*values).answer_ns = bpf_ktime_get_ns();
            (*values).await_answer_ns = 0;
        }
    }
}
