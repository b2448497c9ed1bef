//! The rehearsal: before its first deep sleep a server runs for a moment, written out but not swept yet. What it touches
//! comes from the swap cache, without I/O, and is the record that its first deep wake would else be without.

use std::{path::Path, time::Duration};

use super::{Sleeper, Thawed, back::LOOKS, watch::Report};
use crate::memory::{
    group::Group,
    working_set::{Looks, Wake, WorkingSets},
};

/// It runs for half of this at least: ten ticks of 20 Hz.
const AT_MOST: Duration = Duration::from_secs(1);

impl Sleeper {
    /// Lets a frozen server that was just written out run for a moment, and records what it touches in `sets`. Whether it
    /// ran, and froze again. Blocks. A player who comes meanwhile wakes it.
    pub fn rehearse(&self, group: &Group, sets: &Path) -> bool {
        match self.rehearse_now(group, sets) {
            Ok(ran) => ran,
            Err(error) => {
                tracing::debug!(server = %self.name, %error, "no rehearsal: its first deep wake will be slower");
                false
            }
        }
    }

    fn rehearse_now(&self, group: &Group, sets: &Path) -> anyhow::Result<bool> {
        let pids = group.pids()?;
        let mut looks = Looks::new(Wake::Learning);
        for pid in &pids {
            looks.leave_out_mapped(*pid)?;
        }
        let mut number = 0;
        let mut look = |ran: Duration| {
            if LOOKS.get(number).is_some_and(|after| ran >= *after) {
                for pid in &pids {
                    // One that ended meanwhile has nothing to tell.
                    let _ = looks.look(*pid, number);
                }
                number += 1;
            }
        };
        match self.short_thaw(AT_MOST, &mut look)? {
            Thawed::Again { .. } => {
                let mut record = WorkingSets::default();
                record.record(looks);
                tracing::info!(server = %self.name, bytes = record.bytes(), "rehearsed its first deep wake");
                record.save(sets)?;
                Ok(true)
            }
            Thawed::Woken(Some(woken), _) => {
                self.node.tell([Report::Woken { slot: self.slot, woken, from: None }]);
                Ok(false)
            }
            Thawed::Woken(None, _) | Thawed::NotFrozen => Ok(false),
        }
    }
}
