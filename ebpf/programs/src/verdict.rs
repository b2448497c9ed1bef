//! The one place where a decision becomes a TC action.

use aya_ebpf::{
    bindings::{TC_ACT_STOLEN, TC_ACT_UNSPEC},
    helpers::bpf_redirect,
};

/// What the door does with a packet. Never OK (it would end the chain and skip a CNI's own programs) and
/// never SHOT (a local sender would take the packet for unsent and answer our replay's ACK with a reset).
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Leave it to the next program: `TCX_NEXT` and `TC_ACT_UNSPEC` are the same number.
    Pass,
    /// Take it out of the path as a success.
    Consume,
}

/// How this kernel lets a packet be consumed as a success.
#[derive(Clone, Copy)]
pub enum Hook {
    /// `TC_ACT_STOLEN` becomes NEXT on tcx (Linux 6.6, `tcx_action_code`), so the packet is redirected to
    /// an interface that does not exist: `skb_do_redirect` frees it, the sender sees success.
    Tcx,
    Clsact,
}

/// No interface has this index: the kernel counts up from 1 and refuses to wrap.
const NOWHERE: u32 = i32::MAX as u32;

impl Verdict {
    #[inline(always)]
    pub fn action(self, hook: Hook) -> i32 {
        match (self, hook) {
            (Self::Pass, _) => TC_ACT_UNSPEC,
            (Self::Consume, Hook::Clsact) => TC_ACT_STOLEN as i32,
            // SAFETY: a helper call with integers only.
            (Self::Consume, Hook::Tcx) => unsafe { bpf_redirect(NOWHERE, 0) as i32 },
        }
    }
}
