//! What the books of savings are told: a minute at a time, and whenever a stage changes.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{
    Agent, Message,
    clock::{boot_now, unix_now_ms},
    managed::Managed,
    orders::memory_of,
};
use crate::{
    discover::process::Resident,
    savings::{ESTIMATED_SHARE, Seen, Standing},
    stage::Stage,
};

/// How often every server is seen, and the books are written.
pub(super) const EVERY: Duration = Duration::from_mins(1);

impl Agent {
    /// Sees everybody, and brings the books to disk.
    pub(super) fn keep_books(&self) {
        let (asleep, awake): (Vec<_>, Vec<_>) =
            self.servers.iter().partition(|(_, managed)| managed.stage().by().is_some());
        for (name, managed) in asleep {
            self.see(name, managed, managed.history.size_bytes);
        }
        self.read_sizes(awake);
        let node = Seen {
            profile: String::new(),
            standing: Standing::Awake,
            size: self.pool.headroom,
            handed_back: 0,
        };
        self.books.see(None, boot_now(), unix_now_ms(), node);
        let books = Arc::clone(&self.books);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = books.write(unix_now_ms()) {
                tracing::warn!("{error}; `dormouse savings` misses what is not written before a restart");
            }
        });
    }

    /// A server is there: what it holds is worth knowing from now on.
    pub(super) fn read_size(&self, name: &str) {
        self.read_sizes(self.servers.get_key_value(name));
    }

    /// Reads what servers hold, on a thread of its own; [`Agent::sizes_read`] follows.
    fn read_sizes<'a>(&self, servers: impl IntoIterator<Item = (&'a String, &'a Managed)>) {
        let cgroups: Vec<(String, PathBuf)> = servers
            .into_iter()
            .filter_map(|(name, managed)| Some((name.clone(), managed.here()?.brought.found.cgroup.clone())))
            .collect();
        let outbox = self.outbox.clone();
        tokio::task::spawn_blocking(move || {
            let measured = cgroups.into_iter().map(|(name, cgroup)| (name, memory_of(&cgroup))).collect();
            let _ = outbox.send(Message::Measured(measured));
        });
    }

    pub(super) fn sizes_read(&self, measured: &[(String, Resident)]) {
        for (name, memory) in measured {
            // Who fell asleep meanwhile is known better.
            if let Some(managed) = self.servers.get(name).filter(|managed| managed.stage().by().is_none()) {
                self.see(name, managed, memory.anonymous + memory.swapped);
            }
        }
    }

    /// A stage has changed: what it held is not read anew, since a player may be waiting for the CPU.
    pub(super) fn book(&self, name: &str) {
        let Some(managed) = self.servers.get(name) else { return };
        let known = self.books.last(name).map_or(0, |seen| seen.size);
        self.see(
            name,
            managed,
            if managed.stage() == Stage::Awake { known } else { managed.history.size_bytes },
        );
    }

    fn see(&self, name: &str, managed: &Managed, size: u64) {
        let Some(here) = managed.here() else { return };
        let standing = match (here.machine.stage(), here.machine.stage_on_paper()) {
            (_, Some(Stage::Dozing { .. })) => Standing::PaperDozing,
            (_, Some(Stage::Deep { .. })) => Standing::PaperDeep,
            (Stage::Awake, _) => Standing::Awake,
            (Stage::Dozing { .. }, _) => Standing::Dozing,
            (Stage::Deep { .. }, _) => Standing::Deep,
            (Stage::Waking, _) => Standing::Waking,
        };
        let handed_back = match standing {
            Standing::PaperDeep => (size as f64 * ESTIMATED_SHARE) as u64,
            _ => managed.history.handed_back.map_or(0, |handed| handed.bytes),
        };
        let profile = managed.config.profile.name.clone();
        self.books.see(Some(name), boot_now(), unix_now_ms(), Seen { profile, standing, size, handed_back });
    }
}
