//! The open books: what was seen of a server holds until it is seen again.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use super::{
    recent::{Recent, Wear},
    row::{HOUR, Row, Tally, byte_seconds},
};

/// A server that was not seen for longer was not watched: nothing is said of that time (the daemon was stopped, the
/// machine suspended).
const LONGEST_UNSEEN: Duration = Duration::from_mins(3);

/// How a server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Awake,
    Dozing,
    Deep,
    Waking,
    /// Awake, in mode observe; would be dozing.
    PaperDozing,
    /// Awake, in mode observe; would be deep.
    PaperDeep,
}

/// What was seen of a server, or of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub profile: String,
    pub standing: Standing,
    /// What it holds awake, bytes. Of the node: the headroom.
    pub size: u64,
    /// What it gives back now, bytes; in mode observe, what it would.
    pub handed_back: u64,
}

/// A server's name; `None` is the node.
type Whose = Option<String>;

/// Rows that are still being written, and what was seen last.
#[derive(Debug, Default)]
pub struct Ledger {
    open: BTreeMap<(u64, Whose), Row>,
    seen: BTreeMap<Whose, (Duration, Seen)>,
    recent: Recent,
}

impl Ledger {
    /// Goes on with the rows of an earlier daemon: those still open, and the closed ones of the last days.
    pub fn resume(open: impl IntoIterator<Item = Row>, closed: &[Row]) -> Self {
        let open: BTreeMap<_, _> =
            open.into_iter().map(|row| ((row.start, row.server.clone()), row)).collect();
        let mut recent = Recent::default();
        // A row that is open is the newer word on its hour.
        let newest = closed.iter().filter(|row| !open.contains_key(&(row.start, row.server.clone())));
        newest.chain(open.values()).for_each(|row| recent.add(row));
        Self { open, seen: BTreeMap::new(), recent }
    }

    /// Books the time since it was last seen as what it was then. `boot` is the boot clock, `unix_ms` people's.
    pub fn see(&mut self, whose: &Whose, boot: Duration, unix_ms: u64, seen: Seen) {
        if let Some((then, was)) = self.seen.insert(whose.clone(), (boot, seen)) {
            self.book(whose, &was, boot.saturating_sub(then), unix_ms);
        }
    }

    /// It is not there any more.
    pub fn lose(&mut self, whose: &Whose, boot: Duration, unix_ms: u64) {
        if let Some((then, was)) = self.seen.remove(whose) {
            self.book(whose, &was, boot.saturating_sub(then), unix_ms);
        }
    }

    /// A page-out wrote that many bytes.
    pub fn wrote(&mut self, server: &str, profile: &str, unix_ms: u64, bytes: u64) {
        let tally = Tally { written: bytes, ..Tally::default() };
        self.add(&Some(server.to_owned()), profile, hour_of(unix_ms), tally);
    }

    /// What servers wrote in the last days, and what that was worth.
    pub fn wear(&self, unix_ms: u64) -> BTreeMap<String, Wear> {
        self.recent.wear(unix_ms)
    }

    /// The rows of hours that are over by now; they leave the books.
    pub fn close(&mut self, unix_ms: u64) -> Vec<Row> {
        let still_open = self.open.split_off(&(hour_of(unix_ms), None));
        std::mem::replace(&mut self.open, still_open).into_values().collect()
    }

    /// Closed rows that could not be kept.
    pub fn reopen(&mut self, rows: Vec<Row>) {
        self.open.extend(rows.into_iter().map(|row| ((row.start, row.server.clone()), row)));
    }

    /// What was seen of a server last.
    pub fn last(&self, server: &str) -> Option<&Seen> {
        self.seen.get(&Some(server.to_owned())).map(|(_, seen)| seen)
    }

    /// The rows that are still being written.
    pub fn open(&self) -> impl Iterator<Item = &Row> {
        self.open.values()
    }

    /// Split at full hours; the end of the time is now.
    fn book(&mut self, whose: &Whose, was: &Seen, length: Duration, unix_ms: u64) {
        if length > LONGEST_UNSEEN {
            return;
        }
        let mut end = unix_ms;
        let mut left = length.as_millis() as u64;
        while left > 0 {
            // The hour that the millisecond before `end` is in.
            let hour = hour_of(end.saturating_sub(1));
            let part = left.min(end.saturating_sub(hour * 1000).max(1));
            self.add(whose, &was.profile, hour, tally(was, part));
            left -= part;
            end = end.saturating_sub(part);
        }
    }

    fn add(&mut self, whose: &Whose, profile: &str, start: u64, tally: Tally) {
        let more = Row { server: whose.clone(), profile: profile.to_owned(), start, tally };
        self.recent.add(&more);
        match self.open.entry((start, whose.clone())) {
            Entry::Vacant(place) => drop(place.insert(more)),
            Entry::Occupied(mut row) => {
                let row = row.get_mut();
                row.tally.add(&more.tally);
                row.profile = more.profile;
            }
        }
    }
}

fn hour_of(unix_ms: u64) -> u64 {
    unix_ms / 1000 / HOUR * HOUR
}

fn tally(was: &Seen, ms: u64) -> Tally {
    let mut tally = Tally { size: byte_seconds(was.size, ms), ..Tally::default() };
    let handed_back = byte_seconds(was.handed_back, ms);
    match was.standing {
        Standing::Awake => tally.awake_ms = ms,
        Standing::Dozing => tally.dozing_ms = ms,
        Standing::Deep => tally.deep_ms = ms,
        Standing::Waking => tally.waking_ms = ms,
        Standing::PaperDozing => (tally.awake_ms, tally.paper_dozing_ms) = (ms, ms),
        Standing::PaperDeep => (tally.awake_ms, tally.paper_deep_ms) = (ms, ms),
    }
    match was.standing {
        Standing::PaperDozing | Standing::PaperDeep => tally.paper_handed_back = handed_back,
        _ => tally.handed_back = handed_back,
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-18 11:00:00 UTC.
    const ELEVEN: u64 = 1_794_999_600;
    const GIB: u64 = 1 << 30;

    fn seen(standing: Standing, handed_back: u64) -> Seen {
        Seen { profile: "luanti".into(), standing, size: GIB, handed_back }
    }

    const NODE: Whose = None;

    #[test]
    fn time_counts_as_what_it_was_at_its_beginning() {
        let mut ledger = Ledger::default();
        let at = |s: u64| (Duration::from_secs(500 + s), (ELEVEN + s) * 1000);
        for (second, standing, handed) in
            [(0, Standing::Awake, 0), (60, Standing::Deep, GIB), (120, Standing::Awake, 0)]
        {
            let (boot, unix) = at(second);
            ledger.see(&NODE, boot, unix, seen(standing, handed));
        }
        let rows: Vec<_> = ledger.open().collect();
        let [row] = rows[..] else { panic!("{rows:?}") };
        assert_eq!((row.tally.awake_ms, row.tally.deep_ms), (60_000, 60_000));
        assert_eq!((row.tally.size, row.tally.handed_back), (120 * GIB, 60 * GIB));
    }

    #[test]
    fn a_full_hour_splits_and_closes() {
        let mut ledger = Ledger::default();
        let before = (ELEVEN + HOUR - 20) * 1000;
        ledger.see(&NODE, Duration::from_secs(1000), before, seen(Standing::Deep, GIB));
        ledger.see(&NODE, Duration::from_secs(1050), before + 50_000, seen(Standing::Deep, GIB));
        let closed = ledger.close(before + 50_000);
        assert_eq!(
            closed.iter().map(|row| (row.start, row.tally.deep_ms)).collect::<Vec<_>>(),
            [(ELEVEN, 20_000)]
        );
        assert_eq!(
            ledger.open().map(|row| (row.start, row.tally.deep_ms)).collect::<Vec<_>>(),
            [(ELEVEN + HOUR, 30_000)]
        );
    }

    #[test]
    fn what_nobody_saw_is_not_booked() {
        let mut ledger = Ledger::default();
        let now = ELEVEN * 1000;
        ledger.see(&NODE, Duration::from_secs(10), now, seen(Standing::Deep, GIB));
        ledger.see(&NODE, Duration::from_hours(2), now + 7_190_000, seen(Standing::Deep, GIB));
        assert_eq!(ledger.open().count(), 0);
        ledger.lose(&NODE, Duration::from_secs(7230), now + 7_220_000);
        assert_eq!(ledger.open().map(|row| row.tally.deep_ms).sum::<u64>(), 30_000);
    }

    #[test]
    fn on_paper_it_was_awake() {
        let mut ledger = Ledger::default();
        let now = ELEVEN * 1000 + 60_000;
        ledger.see(&NODE, Duration::from_secs(10), now - 60_000, seen(Standing::PaperDeep, GIB));
        ledger.lose(&NODE, Duration::from_secs(70), now);
        let tally = ledger.open().next().unwrap().tally;
        assert_eq!((tally.awake_ms, tally.paper_deep_ms, tally.deep_ms), (60_000, 60_000, 0));
        assert_eq!((tally.handed_back, tally.paper_handed_back), (0, 60 * GIB));
    }

    proptest::proptest! {
        /// Whatever the clocks do, no time is booked twice and none is lost.
        #[test]
        fn every_millisecond_is_booked_once(steps in proptest::collection::vec(0u64..180_000, 1..50)) {
            let mut ledger = Ledger::default();
            let (mut boot, mut unix) = (Duration::from_secs(5), ELEVEN * 1000 + 3_599_000);
            ledger.see(&NODE, boot, unix, seen(Standing::Awake, 0));
            for step in &steps {
                boot += Duration::from_millis(*step);
                unix += step;
                ledger.see(&NODE, boot, unix, seen(Standing::Awake, 0));
            }
            let closed = ledger.close(unix);
            let booked: u64 = closed.iter().chain(ledger.open()).map(|row| row.tally.awake_ms).sum();
            proptest::prop_assert_eq!(booked, steps.iter().sum::<u64>());
        }
    }
}
