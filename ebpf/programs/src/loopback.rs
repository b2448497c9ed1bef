//! Roads that cross no veth: the pod's own `lo`, and servers in the host's network namespace. Seen at the
//! receiving socket's cgroup, where a packet can be signalled, never parked.

use aya_ebpf::{macros::cgroup_skb, programs::SkBuffContext};

use crate::{door, skb::Skb};

/// `cgroup_skb` knows two answers only: 0 drops, 1 passes.
const PASS: i32 = 1;

#[cgroup_skb]
pub fn loopback(ctx: SkBuffContext) -> i32 {
    let skb = Skb::new(ctx.skb.skb);
    // SIGNAL_ONLY servers are never consumed, so the verdict can only be to pass.
    let _ = door::judge(skb, 0, skb.cgroup_id());
    PASS
}
