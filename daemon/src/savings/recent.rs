//! The last days by server, kept in memory: what a page-out was worth is asked before each one.

use std::collections::BTreeMap;

use super::row::{DAY, Row};

/// Days that count besides today.
pub const DAYS: u64 = 7;

/// One server's writing to swap over the last days.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Wear {
    /// Bytes written today (UTC).
    pub today: u64,
    /// Bytes written on a usual day: the mean of the days before today that it was there.
    pub usual: u64,
    /// Byte-seconds handed back for each byte written; `None` = nothing was written.
    pub worth: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Day {
    written: u64,
    handed_back: u64,
}

/// By server and day since 1970.
#[derive(Debug, Default)]
pub struct Recent(BTreeMap<String, BTreeMap<u64, Day>>);

impl Recent {
    /// `row` says what came on top.
    pub fn add(&mut self, row: &Row) {
        let Some(server) = &row.server else { return };
        let day = row.start / DAY;
        let days = self.0.entry(server.clone()).or_default();
        let sum = days.entry(day).or_default();
        sum.written = sum.written.saturating_add(row.tally.written);
        sum.handed_back = sum.handed_back.saturating_add(row.tally.handed_back);
        if days.len() as u64 > DAYS + 1 {
            days.pop_first();
        }
    }

    /// Who wrote, or slept, in the last days.
    pub fn wear(&self, unix_ms: u64) -> BTreeMap<String, Wear> {
        let today = unix_ms / 1000 / DAY;
        self.0.iter().map(|(server, days)| (server.clone(), wear(days, today))).collect()
    }
}

fn wear(days: &BTreeMap<u64, Day>, today: u64) -> Wear {
    let before: Vec<&Day> = days.range(today.saturating_sub(DAYS)..today).map(|(_, day)| day).collect();
    let now = days.get(&today).copied().unwrap_or_default();
    let sum = |of: fn(&Day) -> u64| before.iter().map(|day| of(day)).sum::<u64>();
    let (written, handed_back) = (sum(|day| day.written), sum(|day| day.handed_back));
    let all = written + now.written;
    Wear {
        today: now.written,
        usual: written / (before.len() as u64).max(1),
        worth: (all > 0).then(|| (handed_back + now.handed_back) as f64 / all as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::Tally;
    use super::*;

    fn row(server: &str, day: u64, written: u64, handed_back: u64) -> Row {
        let tally = Tally { handed_back, written, ..Tally::default() };
        Row { server: Some(server.into()), profile: String::new(), start: day * DAY + 3600, tally }
    }

    #[test]
    fn a_usual_day_and_what_a_byte_is_worth() {
        let mut recent = Recent::default();
        for row in
            [row("a", 90, 1000, 9), row("a", 98, 10, 100), row("a", 99, 30, 100), row("a", 100, 10, 300)]
        {
            recent.add(&row);
        }
        recent.add(&row("b", 100, 0, 5));
        let wear = recent.wear(100 * DAY * 1000);
        assert_eq!(wear["a"], Wear { today: 10, usual: 20, worth: Some(10.0) }, "day 90 is long ago");
        assert_eq!(wear["b"], Wear::default());
        assert_eq!(recent.wear(101 * DAY * 1000)["a"].today, 0, "a new day");
    }

    #[test]
    fn no_more_days_are_kept_than_count() {
        let mut recent = Recent::default();
        for day in 0..100 {
            recent.add(&row("a", day, 1, 1));
        }
        assert_eq!(recent.0["a"].len() as u64, DAYS + 1);
        assert_eq!(recent.wear(99 * DAY * 1000)["a"].usual, 1);
    }
}
