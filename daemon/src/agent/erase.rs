//! Erasing a person: the second consumer of the control plane's erasures.
//!
//! What this daemon knows of players is addresses, and all of them are in its memory: the journal of events, who woke a
//! server last, who was refused. On the disk stands whose keep it is (stage files, answers to commands). An address
//! doesn't tell whose it is, so every address goes. What holds a packet or a connection that is under way (the door's
//! table of flows, the lists of who waits) ends with it and is left alone: it is not a record, and players would feel it.

use dormouse_api::{Problem, registry::erasure::NOBODY};

use super::{Agent, saved};
use crate::stage::by;

impl Agent {
    /// How many things were made anonymous. Again it finds none.
    pub(super) fn erase(&mut self, subject: &str, tenant: Option<&str>) -> Result<u64, Problem> {
        let meant = |server: &str| is_of(server, tenant);
        let mut count = self.journal.erase(subject, meant);
        for (name, managed) in self.servers.iter_mut().filter(|(name, _)| meant(name)) {
            let history = &mut managed.history;
            count += u64::from(history.last_wake.as_mut().is_some_and(|last| last.from.take().is_some()));
            count += history.scan_addresses.len() as u64;
            history.scan_addresses.clear();
            if let Some(paper) = &mut history.paper
                && paper.contains(&by(subject))
            {
                *paper = paper.replace(&by(subject), &by(NOBODY));
                count += 1;
            }
            let slot = managed.slot;
            let Some(here) = managed.here_mut() else { continue };
            let (kept, cause) = here.machine.erase(subject, NOBODY);
            count += u64::from(kept) + u64::from(cause);
            // Also of an earlier try, whose file was not written.
            if here.machine.kept().is_some_and(|kept| kept.owner == NOBODY) {
                stored(name, saved::store(&self.config.run_dir, name, slot, here.machine.saved()))?;
            }
        }
        // What an earlier daemon left of servers that are still looked for.
        for (name, record) in self.records.iter_mut().filter(|(name, _)| meant(name)) {
            count += u64::from(record.saved.erase(subject, NOBODY));
            stored(name, saved::store(&self.config.run_dir, name, record.slot, record.saved.clone()))?;
        }
        if count > 0 {
            self.changes.send_replace(());
        }
        Ok(count)
    }
}

/// Whether a server, `TENANT/NAME`, is this tenant's.
fn is_of(server: &str, tenant: Option<&str>) -> bool {
    tenant.is_none_or(|tenant| server.split_once('/').is_some_and(|(owner, _)| owner == tenant))
}

fn stored(server: &str, outcome: std::io::Result<()>) -> Result<(), Problem> {
    outcome.map_err(|error| Problem::internal(format!("{server}: its stage can't be stored: {error}")))
}
