//! The watch: one thread that reads the ring, looks at the flags, and wakes. Nothing here waits for a
//! server: a slow wake of one holds up nobody.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    sync::{Arc, PoisonError, RwLock, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use dormouse_abi::{
    MAX_SERVERS,
    gate::{self, OPEN},
};
use dormouse_packet::{Class, headers::TCP};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Node, Sleeper, Woken};
use crate::{
    door::{Knock, Record, monotonic_ns},
    failpoint,
    limits::FirstSpeaker,
    memory::prefetch::Prefetched,
};

/// How long a flag may stand before it is seen, when the ring had no room to tell of it.
const LOOK_AT_FLAGS: Duration = Duration::from_millis(50);
/// How often what is parked is looked over for its age.
const EXPIRE_EVERY: Duration = Duration::from_millis(500);
/// How long reports wait for a wake that may follow at once: a client's payload comes with its handshake, and
/// whoever acts on the report of one would take a CPU from the other. Whole milliseconds, as poll(2) counts.
const HOLD_REPORTS: Duration = Duration::from_millis(1);
/// News of one server that its agent has not heard yet; what comes on top is counted and dropped. Nothing that a
/// wake depends on is news.
const MOST_UNHEARD: u32 = 256;
/// The most records that are read in one go: who is to be woken among them does not wait for the end of a flood.
const MOST_AT_ONCE: usize = 2048;
/// The most records that are kept for a server that is not found again yet.
const MOST_EARLY: usize = 512;

/// What the watch tells the rest of the daemon.
#[derive(Clone, Debug)]
pub enum Report {
    /// Somebody knocked on a server that does not sleep by an open gate.
    Knock(Knock),
    /// The watch woke a server for a player.
    Woken { slot: u32, woken: Woken, from: Option<Knock> },
    /// It tried to; the stage machine tries again.
    WakeFailed { slot: u32, reason: String },
    /// A silent or undecided connection has waited for `patience`: is it still there? Then it is a player.
    Patience(Knock),
    /// Somebody asked a sleeping server something, and its own answer is still to come.
    Queried(u32),
    /// A handshake with a frozen server: its accept queue grew.
    Connected(u32),
    /// What it touched after a wake is recorded: bytes, and the wakes that they were learned from.
    Recorded { slot: u32, bytes: u64, wakes: u32 },
    /// A deep sleeper's working set is there again.
    BroughtBack { slot: u32, done: Arc<Prefetched> },
    /// A handshake with a server that speaks first, or that a player's bytes came with: is it true? Then it is a player.
    Handshake(Knock),
}

/// A [`Record`] without its content.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Parked,
    Knock,
    FastOpen,
}

impl Kind {
    fn of(record: &Record) -> Self {
        match record {
            Record::Parked(_) => Self::Parked,
            Record::Knock(_) => Self::Knock,
            Record::FastOpen(_) => Self::FastOpen,
        }
    }
}

/// Who has which slot.
pub struct Slots(RwLock<Vec<Option<Arc<Sleeper>>>>);

impl Default for Slots {
    fn default() -> Self {
        Self(RwLock::new(vec![None; MAX_SERVERS as usize]))
    }
}

impl Slots {
    pub fn get(&self, slot: u32) -> Option<Arc<Sleeper>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(slot as usize)?.clone()
    }

    pub fn set(&self, slot: u32, sleeper: Option<Arc<Sleeper>>) {
        if let Some(place) = self.0.write().unwrap_or_else(PoisonError::into_inner).get_mut(slot as usize) {
            *place = sleeper;
        }
    }

    /// The lowest slot that nobody has.
    pub fn free(&self, taken: impl Fn(u32) -> bool) -> Option<u32> {
        let slots = self.0.read().unwrap_or_else(PoisonError::into_inner);
        (0..MAX_SERVERS).find(|slot| slots[*slot as usize].is_none() && !taken(*slot))
    }

    /// The sleepers for whom there is something to do; at rest these are none of hundreds.
    fn asleep(&self, has_work: impl Fn(&Sleeper) -> bool) -> Vec<Arc<Sleeper>> {
        let slots = self.0.read().unwrap_or_else(PoisonError::into_inner);
        slots.iter().flatten().filter(|sleeper| sleeper.is_asleep() && has_work(sleeper)).cloned().collect()
    }
}

impl Node {
    /// Reads what is in the ring, bounded: packets into their servers' queues, players onto the list of those
    /// to be woken. What is to be told of it goes to [`Node::tell`], once nobody waits for a wake any more: it
    /// sets other threads going.
    #[must_use]
    pub(super) fn read_records(&self) -> Vec<Report> {
        // Whoever holds the reader reads it empty.
        let Ok(mut reader) = self.reader.try_lock() else {
            std::thread::yield_now();
            return vec![];
        };
        let records: Vec<Record> = reader.by_ref().take(MOST_AT_ONCE).collect();
        drop(reader);
        records.into_iter().filter_map(|record| self.take_in(record)).collect()
    }

    pub(super) fn tell(&self, reports: impl IntoIterator<Item = Report>) {
        for report in reports {
            let _ = self.reports.send(report);
        }
    }

    fn take_in(&self, record: Record) -> Option<Report> {
        let slot = record.knock().slot;
        let sleeper = self.slots.get(slot).or_else(|| self.keep_early(slot, &record))?;
        let (knock, kind) = (*record.knock(), Kind::of(&record));
        if let Record::Parked(parked) = record {
            failpoint::at("ring-read");
            let ended = sleeper.queue().push(parked);
            sleeper.ended(ended);
        }
        // Draining is bounded: what was read too late for it must not wait for the next wake.
        if kind == Kind::Parked && gate::state(self.arrays.gate(slot)) == OPEN {
            sleeper.replay_queue(usize::MAX);
        }
        self.announce(&sleeper, knock, kind)
    }

    /// A record of a server that nobody has now: kept if it is expected, else ended, since its gate must not
    /// wait for it. Gives back the server if it came this very moment.
    fn keep_early(&self, slot: u32, record: &Record) -> Option<Arc<Sleeper>> {
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sleeper) = self.slots.get(slot) {
            return Some(sleeper);
        }
        if let Some(records) = early.get_mut(&slot) {
            records.push_back(record.clone());
            if records.len() <= MOST_EARLY {
                return None;
            }
            if let Some(Record::Parked(_)) = records.pop_front() {
                self.arrays.end_record(slot);
            }
        } else if matches!(record, Record::Parked(_)) {
            self.arrays.end_record(slot);
        }
        None
    }

    /// Keeps what comes for these slots until their servers are [`Node::settle`]d or given up.
    pub fn expect(&self, slots: impl Iterator<Item = u32>) {
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        early.extend(slots.map(|slot| (slot, VecDeque::new())));
    }

    /// Gives a slot to its server, with what came for it before.
    pub fn settle(&self, sleeper: &Arc<Sleeper>) {
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        let records = early.remove(&sleeper.slot).unwrap_or_default();
        // Before the watch can put a later one in front of them.
        for record in &records {
            if let Record::Parked(parked) = record {
                let ended = sleeper.queue().push(parked.clone());
                sleeper.ended(ended);
            }
        }
        self.slots.set(sleeper.slot, Some(Arc::clone(sleeper)));
        drop(early);
        let announce = |record: &Record| self.announce(sleeper, *record.knock(), Kind::of(record));
        self.tell(records.iter().filter_map(announce));
        self.kick();
    }

    /// The server of a slot is not there: its gate opens, and nothing is kept for it.
    pub fn give_up(&self, slot: u32) {
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        self.arrays.set_gate(slot, OPEN);
        for record in early.remove(&slot).unwrap_or_default() {
            if matches!(record, Record::Parked(_)) {
                self.arrays.end_record(slot);
            }
        }
    }

    fn announce(&self, sleeper: &Sleeper, knock: Knock, kind: Kind) -> Option<Report> {
        if knock.class == Class::Player {
            self.enlist(knock);
        }
        let first_speaker = sleeper.manners().first_speaker;
        let report = match (knock.class, kind, first_speaker) {
            (Class::Undecided, Kind::FastOpen, _) | (Class::Undecided, Kind::Knock, FirstSpeaker::Server) => {
                Report::Handshake(knock)
            }
            // A probe that says nothing is over by now.
            (Class::Undecided, Kind::Knock, FirstSpeaker::Client) | (Class::Probe, Kind::Knock, _) => {
                Report::Connected(knock.slot)
            }
            (Class::Undecided, Kind::Parked, _) if knock.protocol != TCP => return None,
            (Class::Undecided, ..) => Report::Patience(knock),
            _ => Report::Knock(knock),
        };
        if sleeper.unheard.fetch_add(1, SeqCst) >= MOST_UNHEARD {
            sleeper.unheard.fetch_sub(1, SeqCst);
            sleeper.untold.fetch_add(1, SeqCst);
            return None;
        }
        Some(report)
    }

    /// The agent has taken a report: there is room for another.
    pub fn heard(&self, report: &Report) {
        let slot = match report {
            Report::Knock(knock) | Report::Patience(knock) | Report::Handshake(knock) => knock.slot,
            Report::Connected(slot) => *slot,
            Report::Woken { .. }
            | Report::WakeFailed { .. }
            | Report::BroughtBack { .. }
            | Report::Recorded { .. }
            | Report::Queried(_) => return,
        };
        if let Some(sleeper) = self.slots.get(slot) {
            // A server that was found anew begins at zero.
            let _ = sleeper.unheard.fetch_update(SeqCst, SeqCst, |unheard| unheard.checked_sub(1));
        }
    }

    fn wake_who_is_wanted(&self) -> Vec<Report> {
        let mut reports = vec![];
        loop {
            let knocks = std::mem::take(&mut *self.to_wake.lock().unwrap_or_else(PoisonError::into_inner));
            if knocks.is_empty() {
                return reports;
            }
            let with_sleeper = |knock: Knock| Some((self.slots.get(knock.slot)?, knock));
            let mut wanted: Vec<_> = knocks.into_iter().filter_map(with_sleeper).collect();
            // Of those who came together, who needs the disk least goes first.
            wanted.sort_by_key(|(sleeper, _)| sleeper.comes_back());
            reports.extend(
                wanted.iter().filter_map(|(sleeper, knock)| wake(sleeper, knock.time_ns, Some(*knock))),
            );
        }
    }

    /// What needs no record: the flags, and what grew old in the queues.
    fn look_at_flags(&self, expire: bool) {
        let now = monotonic_ns();
        let has_work = |sleeper: &Sleeper| {
            let state = self.arrays.state(sleeper.slot);
            let flagged = state.wake_ns.load(SeqCst) != 0 || state.query_ns.load(SeqCst) != 0;
            flagged || sleeper.wanted.load(SeqCst) || expire && !sleeper.queue().is_empty()
        };
        let sleepers = self.slots.asleep(has_work);
        if !sleepers.is_empty() {
            // A record that came since the last look says who it was that set a flag.
            self.tell(self.read_records());
            self.tell(self.wake_who_is_wanted());
        }
        for sleeper in sleepers {
            let state = self.arrays.state(sleeper.slot);
            let flagged = state.wake_ns.load(SeqCst);
            if flagged != 0 || sleeper.wanted.load(SeqCst) {
                self.tell(wake(&sleeper, if flagged == 0 { now } else { flagged }, None));
            }
            // A query that passed on the way into the doze waits in the frozen server's socket, without a record.
            if state.take_query().is_some() {
                let _ = self.reports.send(Report::Queried(sleeper.slot));
            }
            if expire && !sleeper.queue().is_empty() {
                let patience = sleeper.manners().patience;
                let mut queue = sleeper.queue();
                let ended = queue.expire(now) + queue.expire_undecided_datagrams(now, patience);
                drop(queue);
                sleeper.ended(ended);
            }
        }
    }
}

fn wake(sleeper: &Arc<Sleeper>, knocked_ns: u64, from: Option<Knock>) -> Option<Report> {
    if sleeper.waits.load(SeqCst) {
        return None;
    }
    if sleeper.has_to_wait() {
        return wake_in_turn(sleeper, knocked_ns, from);
    }
    wake_now(sleeper, knocked_ns, from)
}

fn wake_now(sleeper: &Sleeper, knocked_ns: u64, from: Option<Knock>) -> Option<Report> {
    match sleeper.wake(Some(knocked_ns)) {
        Ok(woken) => woken.map(|woken| Report::Woken { slot: sleeper.slot, woken, from }),
        Err(error) => Some(Report::WakeFailed { slot: sleeper.slot, reason: error.to_string() }),
    }
}

/// Wakes it when its turn comes, by a thread of its own: nobody else's wake waits for that.
fn wake_in_turn(sleeper: &Arc<Sleeper>, knocked_ns: u64, from: Option<Knock>) -> Option<Report> {
    sleeper.stop_deep();
    sleeper.waits.store(true, SeqCst);
    let its_own = Arc::clone(sleeper);
    let work = move || {
        go_first();
        let turn = its_own.await_turn();
        let report = wake_now(&its_own, knocked_ns, from);
        drop(turn);
        its_own.waits.store(false, SeqCst);
        its_own.node.tell(report);
    };
    let error = std::thread::Builder::new().name("dm-turn".into()).spawn(work).err()?;
    tracing::warn!(server = %sleeper.name, %error, "no thread: it runs at once");
    sleeper.waits.store(false, SeqCst);
    wake_now(sleeper, knocked_ns, from)
}

/// A player waits for this thread: it goes before everything that is merely busy. Little runs on it, and
/// nothing that waits for a server. Without CAP_SYS_NICE wakes are as slow as the node is loaded.
pub fn go_first() {
    const FIRST: libc::c_int = -20;
    // SAFETY: no pointers; 0 is the calling thread (setpriority(2): threads have nice values of their own).
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, FIRST) } != 0 {
        tracing::info!(
            error = %std::io::Error::last_os_error(),
            "the watch can't go before busy servers (CAP_SYS_NICE): wakes are slower on a loaded node"
        );
    }
}

/// Runs the watch; returns when `stop` says so.
pub fn watch(node: &Node, stop: &dyn Fn() -> bool) {
    go_first();
    let ring = node.reader.lock().unwrap_or_else(PoisonError::into_inner).as_raw_fd();
    // SAFETY: the reader lives in `node`, which outlives this call, and never closes its descriptor.
    let ring = unsafe { BorrowedFd::borrow_raw(ring) };
    let mut expired = Instant::now();
    let mut looked = Instant::now();
    let mut held: Vec<Report> = vec![];
    let mut held_since = Instant::now();
    while !stop() {
        let mut fds =
            [PollFd::new(ring, PollFlags::POLLIN), PollFd::new(node.kick.as_fd(), PollFlags::POLLIN)];
        let timeout = if held.is_empty() { LOOK_AT_FLAGS } else { HOLD_REPORTS };
        let _ =
            poll(&mut fds, PollTimeout::try_from(timeout.as_millis() as i32).unwrap_or(PollTimeout::ZERO));
        if fds[1].any() == Some(true) {
            let _ = node.kick.read();
        }
        let read = node.read_records();
        let woken = node.wake_who_is_wanted();
        if held.is_empty() {
            held_since = Instant::now();
        }
        held.extend(read.into_iter().chain(woken));
        if !held.is_empty() && held_since.elapsed() >= HOLD_REPORTS {
            node.tell(held.drain(..));
        }
        if looked.elapsed() >= LOOK_AT_FLAGS {
            let expire = expired.elapsed() >= EXPIRE_EVERY;
            node.look_at_flags(expire);
            looked = Instant::now();
            if expire {
                expired = looked;
            }
        }
    }
    node.tell(held);
}
