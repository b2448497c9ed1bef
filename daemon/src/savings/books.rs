//! The books as a whole: written once a minute, read when somebody asks.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dormouse_api::{
    Problem,
    savings::{Savings, SavingsRequest},
};

use super::{
    ledger::{Ledger, Seen},
    recent::{self, Wear},
    row::{DAY, Row},
    store::{Store, StoreError},
    sum::sum,
};

/// What is summed when nobody says since when.
const USUAL_PERIOD_MS: u64 = 30 * 86_400_000;

/// The node's books. `see`, `lose` and `wrote` only count; `write` and `read` block on the disk.
#[derive(Debug)]
pub struct Books {
    ledger: Mutex<Ledger>,
    store: Store,
    /// One writer at a time.
    writing: Mutex<()>,
}

impl Books {
    /// Goes on with what an earlier daemon left in this folder.
    pub fn open(folder: PathBuf, unix_ms: u64) -> Self {
        let store = Store::new(folder);
        let now = unix_ms / 1000;
        let closed =
            store.rows(now.saturating_sub((recent::DAYS + 1) * DAY)..now + 1).unwrap_or_else(|error| {
                tracing::warn!("{error}; what was written to swap in the last days is not known");
                vec![]
            });
        Self {
            ledger: Mutex::new(Ledger::resume(store.open_rows(), &closed)),
            store,
            writing: Mutex::default(),
        }
    }

    /// A server (`None`: the node) as it is from now on. Times are the boot clock's and milliseconds since 1970.
    pub fn see(&self, server: Option<&str>, boot: Duration, unix_ms: u64, seen: Seen) {
        self.ledger().see(&server.map(str::to_owned), boot, unix_ms, seen);
    }

    /// What was seen of a server last.
    pub fn last(&self, server: &str) -> Option<Seen> {
        self.ledger().last(server).cloned()
    }

    /// It is not there any more.
    pub fn lose(&self, server: &str, boot: Duration, unix_ms: u64) {
        self.ledger().lose(&Some(server.to_owned()), boot, unix_ms);
    }

    /// A page-out wrote that many bytes to swap.
    pub fn wrote(&self, server: &str, profile: &str, unix_ms: u64, bytes: u64) {
        self.ledger().wrote(server, profile, unix_ms, bytes);
    }

    /// What servers wrote to swap in the last days, and what that was worth.
    pub fn wear(&self, unix_ms: u64) -> BTreeMap<String, Wear> {
        self.ledger().wear(unix_ms)
    }

    /// Brings the books to disk, and folds old days.
    ///
    /// # Errors
    /// The disk does not take them; they stay in memory and are written the next time.
    pub fn write(&self, unix_ms: u64) -> Result<(), StoreError> {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (closed, open) = {
            let mut ledger = self.ledger();
            let closed = ledger.close(unix_ms);
            (closed, ledger.open().cloned().collect::<Vec<_>>())
        };
        if let Err(error) = self.store.write(&closed, &open) {
            self.ledger().reopen(closed);
            return Err(error);
        }
        if closed.is_empty() { Ok(()) } else { self.store.fold(unix_ms / 1000) }
    }

    /// The sums of a period.
    ///
    /// # Errors
    /// A period that ends before it begins, a server that is not in the books, or books that can't be read.
    pub fn read(&self, node: String, request: &SavingsRequest, unix_ms: u64) -> Result<Savings, Problem> {
        let until = request.until_at_ms.unwrap_or(unix_ms);
        let since = request.since_at_ms.unwrap_or(until.saturating_sub(USUAL_PERIOD_MS));
        if since >= until {
            return Err(Problem::bad_field("since_at_ms", "the period ends before it begins"));
        }
        let period = since / 1000..until.div_ceil(1000);
        let mut rows =
            self.store.rows(period.clone()).map_err(|error| Problem::internal(error.to_string()))?;
        let open: Vec<Row> =
            self.ledger().open().filter(|row| period.contains(&row.start)).cloned().collect();
        rows.retain(|row| !open.iter().any(|open| open.start == row.start && open.server == row.server));
        rows.extend(open);
        for name in &request.servers.servers {
            if !rows.iter().any(|row| row.server.as_ref() == Some(name)) {
                return Err(Problem::no_such_server(name));
            }
        }
        Ok(sum(node, since..until, &request.servers, rows))
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Standing, *};

    const GIB: u64 = 1 << 30;
    /// 2026-11-18 11:00:00 UTC.
    const ELEVEN: u64 = 1_794_999_600_000;

    fn deep() -> Seen {
        Seen { profile: "luanti".into(), standing: Standing::Deep, size: 2 * GIB, handed_back: GIB }
    }

    /// Sees "a" deep for `minutes`, a minute at a time.
    fn sleep(books: &Books, from_ms: u64, minutes: u64) {
        for minute in 0..=minutes {
            let boot = Duration::from_secs(100 + minute * 60);
            books.see(Some("a"), boot, from_ms + minute * 60_000, deep());
        }
    }

    #[test]
    fn a_restart_loses_nothing_that_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let books = Books::open(folder.path().join("savings"), ELEVEN);
        sleep(&books, ELEVEN, 30);
        books.write(ELEVEN + 30 * 60_000).unwrap();
        drop(books);
        let books = Books::open(folder.path().join("savings"), ELEVEN);
        sleep(&books, ELEVEN + 40 * 60_000, 50);
        books.write(ELEVEN + 90 * 60_000).unwrap();
        let read = books.read("n".into(), &SavingsRequest::default(), ELEVEN + 90 * 60_000).unwrap();
        // Ten minutes nobody watched.
        assert!((read.total().deep_hours - 80.0 / 60.0).abs() < 1e-9, "{read:?}");
        assert!((read.total().handed_back_gib_hours - 80.0 / 60.0).abs() < 1e-9);
    }

    #[test]
    fn what_was_written_today_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("savings");
        let books = Books::open(place.clone(), ELEVEN);
        books.wrote("a", "luanti", ELEVEN - 2 * 3_600_000, 5);
        books.wrote("a", "luanti", ELEVEN, 7);
        books.wrote("a", "luanti", ELEVEN - 24 * 3_600_000, 100);
        // The earlier hours are closed by this, the present one stays open.
        books.write(ELEVEN + 1000).unwrap();
        drop(books);
        let books = Books::open(place, ELEVEN + 60_000);
        books.wrote("a", "luanti", ELEVEN + 60_000, 1);
        let wear = books.wear(ELEVEN + 60_000)["a"];
        assert_eq!((wear.today, wear.usual), (13, 100));
    }

    #[test]
    fn a_disk_that_is_full_for_a_while_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("savings");
        std::fs::write(&place, "in the way").unwrap();
        let books = Books::open(place.clone(), ELEVEN);
        sleep(&books, ELEVEN, 90);
        books.write(ELEVEN + 90 * 60_000).unwrap_err();
        std::fs::remove_file(&place).unwrap();
        books.write(ELEVEN + 91 * 60_000).unwrap();
        let read = Books::open(place, ELEVEN)
            .read("n".into(), &SavingsRequest::default(), ELEVEN + 92 * 60_000)
            .unwrap();
        assert!((read.total().deep_hours - 1.5).abs() < 1e-9, "{read:?}");
    }

    #[test]
    fn what_is_asked_must_make_sense() {
        let folder = tempfile::tempdir().unwrap();
        let books = Books::open(folder.path().join("savings"), ELEVEN);
        let period =
            SavingsRequest { since_at_ms: Some(5), until_at_ms: Some(5), ..SavingsRequest::default() };
        assert_eq!(books.read("n".into(), &period, 9).unwrap_err().field.as_deref(), Some("since_at_ms"));
        let servers = dormouse_api::status::Selector { servers: vec!["b".into()], profile: None };
        let unknown = SavingsRequest { servers, ..SavingsRequest::default() };
        assert_eq!(books.read("n".into(), &unknown, 9).unwrap_err(), Problem::no_such_server("b"));
    }
}
