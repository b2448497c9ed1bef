//! Telling the door who probes servers.

use std::{sync::Arc, time::Duration};

use super::Agent;
use crate::discover::probers::prober_ids;

/// How often the cgroups of probers are looked up: a kubelet that was restarted is a stranger for so long.
pub const LOOK_FOR_PROBERS: Duration = Duration::from_secs(5);

impl Agent {
    pub(super) fn look_for_probers(&self) {
        let (place, globs) = (Arc::clone(&self.place), self.config.probers.clone());
        tokio::task::spawn_blocking(move || {
            let probers = prober_ids(&globs, &place.root);
            if let Err(error) = place.node.door().set_probers(&probers) {
                tracing::warn!(%error, probers = probers.len(), "some probers are taken for strangers: name fewer in `probers`");
            }
        });
    }
}
