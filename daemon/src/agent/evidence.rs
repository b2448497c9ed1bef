//! How a server may doze: what its operator vouches for and what can be seen from outside.

use std::sync::Arc;

use dormouse_api::why;

use super::{Agent, orders::Done};
use crate::{
    config::{self, PortSpec, Transport},
    discover::sockets::{self, OutboundPeer},
    stage::{Evidence, Outbound, Save, Watchdog},
};

/// Evidence, with its texts for `why`.
pub struct Gathered {
    pub evidence: Evidence,
    pub save: Option<why::Save>,
    pub watchdog: Option<String>,
}

impl Agent {
    pub(super) fn gather(&mut self, name: &str, _run_hook: bool) {
        let Some(managed) = self.servers.get(name) else { return };
        let server = Arc::clone(&managed.config);
        self.order(name, move |sleeper| {
            let all = sockets::list(&mut sleeper.ways().sockets.diag).unwrap_or_default();
            Done::Evidence(judge(&server, &all))
        });
    }

    pub(super) fn after_wake(&mut self, _name: &str) {}

    pub(super) fn canary(&mut self, name: &str) {
        self.order(name, |_| Done::Canary(Ok(())));
    }
}

fn judge(server: &config::Server, all: &sockets::Sockets) -> Gathered {
    let found = all.outbound().into_iter().find(|link| {
        link.peer == OutboundPeer::Elsewhere
            && !server.bears_outbound(PortSpec { transport: Transport::Tcp, port: link.remote.port() })
    });
    let save = if server.save_files().is_none() { Save::NotNeeded } else { Save::NoEvidence };
    let watchdog = match server.watchdog() {
        config::Watchdog::None => Watchdog::Off,
        _ => Watchdog::Unknown,
    };
    Gathered {
        evidence: Evidence {
            save,
            watchdog,
            outbound: found.map_or(Outbound::None, |link| Outbound::Found { to: link.remote.to_string() }),
            watchdog_cure: None,
        },
        save: None,
        watchdog: None,
    }
}
