//! The books on disk: a file of JSON lines a day (UTC), and one of the rows that are still being written.
//!
//! A row that stands twice (the daemon died between closing an hour and writing the open rows anew) counts as it
//! stands last. A line that can't be read, such as one that a full disk cut off, is left out.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Write,
    ops::Range,
    path::{Path, PathBuf},
};

use super::row::{DAY, Row};

/// Days whose hours are kept apart; of older ones a row a server is kept.
const DAYS_BY_HOUR: u64 = 32;

#[derive(Debug, thiserror::Error)]
#[error("the books of savings in {path} can't be {done}: {source}")]
pub struct StoreError {
    path: PathBuf,
    done: &'static str,
    source: io::Error,
}

/// Where the books are.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// Nothing is made before something is written.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The rows that an earlier daemon left open.
    pub fn open_rows(&self) -> Vec<Row> {
        Self::read(&self.folder.join("open.jsonl")).unwrap_or_default()
    }

    /// Adds closed rows to their days, then replaces the open ones.
    ///
    /// # Errors
    /// The folder can't be written; nothing is lost as long as the caller keeps the rows.
    pub fn write(&self, closed: &[Row], open: &[Row]) -> Result<(), StoreError> {
        fs::create_dir_all(&self.folder).map_err(failed(&self.folder, "made"))?;
        let mut days: BTreeMap<u64, Vec<&Row>> = BTreeMap::new();
        for row in closed {
            days.entry(row.start / DAY).or_default().push(row);
        }
        for (day, rows) in days {
            let path = self.day(day);
            let text = lines(rows.into_iter());
            let file = fs::OpenOptions::new().create(true).append(true).open(&path);
            file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed(&path, "written"))?;
        }
        Self::replace(&self.folder.join("open.jsonl"), &lines(open.iter()))
    }

    /// Closed rows that begin within the period (seconds since 1970); a day that was folded counts whole where it
    /// begins within.
    ///
    /// # Errors
    /// A file is there and can't be read.
    pub fn rows(&self, period: Range<u64>) -> Result<Vec<Row>, StoreError> {
        let mut rows = BTreeMap::new();
        for (day, path) in self.days()? {
            if (day + 1) * DAY <= period.start || day * DAY >= period.end {
                continue;
            }
            for row in Self::read(&path)? {
                if period.contains(&row.start) {
                    rows.insert((row.start, row.server.clone()), row);
                }
            }
        }
        Ok(rows.into_values().collect())
    }

    /// Of days long ago only a row a server stays.
    ///
    /// # Errors
    /// The folder can't be read or written; the days stay as they were.
    pub fn fold(&self, now: u64) -> Result<(), StoreError> {
        for (day, path) in self.days()? {
            if day + DAYS_BY_HOUR > now / DAY {
                continue;
            }
            let hours = self.rows(day * DAY..(day + 1) * DAY)?;
            let mut folded: BTreeMap<Option<String>, Row> = BTreeMap::new();
            for row in &hours {
                let sum = folded.entry(row.server.clone()).or_insert_with(|| Row {
                    start: day * DAY,
                    tally: super::row::Tally::default(),
                    ..row.clone()
                });
                sum.tally.add(&row.tally);
            }
            if folded.len() < hours.len() {
                Self::replace(&path, &lines(folded.values()))?;
            }
        }
        Ok(())
    }

    fn day(&self, day: u64) -> PathBuf {
        self.folder.join(format!("day-{day}.jsonl"))
    }

    /// The files by day since 1970, oldest first.
    fn days(&self) -> Result<BTreeMap<u64, PathBuf>, StoreError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(source) => return Err(failed(&self.folder, "read")(source)),
        };
        Ok(entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name();
                let day = name.to_str()?.strip_prefix("day-")?.strip_suffix(".jsonl")?.parse().ok()?;
                Some((day, entry.path()))
            })
            .collect())
    }

    fn read(path: &Path) -> Result<Vec<Row>, StoreError> {
        match fs::read(path) {
            Ok(text) => Ok(text
                .split(|byte| *byte == b'\n')
                .filter_map(|line| serde_json::from_slice(line).ok())
                .collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(failed(path, "read")(source)),
        }
    }

    /// Whole or not at all.
    fn replace(path: &Path, text: &str) -> Result<(), StoreError> {
        let new = path.with_extension("new");
        fs::write(&new, text).and_then(|()| fs::rename(&new, path)).map_err(failed(path, "written"))
    }
}

fn failed(path: &Path, done: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError { path: path.to_owned(), done, source }
}

fn lines<'a>(rows: impl Iterator<Item = &'a Row>) -> String {
    // A row is plain numbers and two strings: it can always be written.
    rows.filter_map(|row| serde_json::to_string(row).ok()).map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::{super::row::HOUR, super::row::Tally, *};

    const TODAY: u64 = 20_775;

    fn row(server: &str, hour: u64, deep_ms: u64) -> Row {
        Row {
            server: Some(server.into()),
            profile: "luanti".into(),
            start: TODAY * DAY + hour * HOUR,
            tally: Tally { deep_ms, size: 7, ..Tally::default() },
        }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().join("savings"));
        (folder, store)
    }

    fn day() -> Range<u64> {
        TODAY * DAY..(TODAY + 1) * DAY
    }

    #[test]
    fn nothing_yet_is_no_error() {
        let (_folder, store) = store();
        assert_eq!(store.rows(0..u64::MAX).unwrap(), []);
        assert_eq!(store.open_rows(), []);
        store.fold(u64::MAX).unwrap();
    }

    #[test]
    fn rows_are_kept_and_the_last_word_counts() {
        let (_folder, store) = store();
        store.write(&[row("a", 1, 10), row("b", 1, 20)], &[row("a", 2, 5)]).unwrap();
        store.write(&[row("a", 1, 11)], &[row("a", 3, 1)]).unwrap();
        assert_eq!(store.rows(day()).unwrap(), [row("a", 1, 11), row("b", 1, 20)]);
        assert_eq!(store.rows(day().start + 2 * HOUR..day().end).unwrap(), []);
        assert_eq!(store.open_rows(), [row("a", 3, 1)]);
    }

    #[test]
    fn a_line_that_was_cut_off_costs_only_itself() {
        let (_folder, store) = store();
        store.write(&[row("a", 1, 10)], &[]).unwrap();
        let mut file = fs::OpenOptions::new().append(true).open(store.day(TODAY)).unwrap();
        file.write_all(b"{\"server\":\"b\",\"sta\n").unwrap();
        store.write(&[row("c", 1, 30)], &[]).unwrap();
        assert_eq!(store.rows(day()).unwrap(), [row("a", 1, 10), row("c", 1, 30)]);
    }

    #[test]
    fn old_days_are_folded_without_loss() {
        let (_folder, store) = store();
        store.write(&[row("a", 1, 10), row("a", 2, 20), row("b", 5, 40)], &[]).unwrap();
        store.fold((TODAY + DAYS_BY_HOUR - 1) * DAY).unwrap();
        assert_eq!(store.rows(day()).unwrap().len(), 3);
        store.fold((TODAY + DAYS_BY_HOUR) * DAY).unwrap();
        store.fold((TODAY + DAYS_BY_HOUR) * DAY).unwrap();
        let mut a = row("a", 0, 30);
        a.tally.size = 14;
        assert_eq!(store.rows(day()).unwrap(), [a, row("b", 0, 40)]);
    }
}
