//! How much a node may write to swap in a day (`deep_write_budget`): drives wear (design §4).
//!
//! As the day's budget runs out, deep stops first for the servers that hand back least for each byte that they write:
//! everybody leaves what those before it are still likely to write on that day. Pure: the books bring the numbers.

use std::collections::BTreeSet;

/// One server's writing.
#[derive(Clone, Debug, PartialEq)]
pub struct Writer<'a> {
    pub name: &'a str,
    /// Byte-seconds handed back for each byte written, over the last days; `None` = it never wrote.
    pub worth: Option<f64>,
    /// Bytes that it writes on a usual day.
    pub usual: u64,
    /// Bytes that it has written today.
    pub today: u64,
    /// Bytes that its next page-out is expected to write, or that the one under way does.
    pub next: u64,
    /// Its page-out is under way.
    pub underway: bool,
}

/// What may be written, and what was; bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    pub a_day: u64,
    /// By everybody, also by servers that are gone.
    pub today: u64,
}

impl Budget {
    /// Those who may not write now.
    pub fn over<'a>(&self, writers: &[Writer<'a>]) -> BTreeSet<&'a str> {
        // One that never wrote has shown nothing yet: it comes first, and keeps nothing from the others.
        let mut by_worth: Vec<&Writer<'a>> = writers.iter().collect();
        by_worth.sort_by(|a, b| {
            let worth = |writer: &Writer<'_>| writer.worth.unwrap_or(f64::INFINITY);
            worth(b).total_cmp(&worth(a)).then_with(|| a.name.cmp(b.name))
        });
        let underway = writers.iter().filter(|writer| writer.underway).map(|writer| writer.next);
        let mut spoken_for = underway.fold(self.today, u64::saturating_add);
        let mut over = BTreeSet::new();
        for writer in by_worth {
            if !writer.underway && spoken_for.saturating_add(writer.next) > self.a_day {
                over.insert(writer.name);
            }
            let so_far = writer.today.saturating_add(if writer.underway { writer.next } else { 0 });
            spoken_for = spoken_for.saturating_add(writer.usual.saturating_sub(so_far));
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn writer(name: &str, worth: f64, usual: u64, today: u64, next: u64) -> Writer<'_> {
        Writer { name, worth: Some(worth), usual, today, next, underway: false }
    }

    fn over(a_day: u64, writers: &[Writer<'static>]) -> Vec<&'static str> {
        let today = writers.iter().map(|writer| writer.today).sum();
        Budget { a_day, today }.over(writers).into_iter().collect()
    }

    #[test]
    fn who_hands_back_least_for_a_byte_stops_first_and_the_best_last() {
        let day = |used: u64| {
            [
                writer("best", 9.0, 30, used, 10),
                writer("fair", 5.0, 30, used, 10),
                writer("worst", 1.0, 30, used, 10),
            ]
        };
        assert_eq!(over(100, &day(0)), Vec::<&str>::new());
        // 45 are written; the best usually writes 15 more, and so does the fair one: 75, and 10 on top.
        assert_eq!(over(84, &day(15)), ["worst"]);
        assert_eq!(over(69, &day(15)), ["fair", "worst"]);
        assert_eq!(over(54, &day(15)), ["best", "fair", "worst"]);
    }

    #[test]
    fn what_is_under_way_is_spoken_for_and_a_new_server_may_show_what_it_is_worth() {
        let new = Writer { worth: None, ..writer("new", 0.0, 0, 0, 20) };
        let old = writer("old", 7.0, 50, 50, 10);
        assert_eq!(over(70, &[old.clone(), new.clone()]), Vec::<&str>::new());
        let underway = Writer { underway: true, ..new };
        assert_eq!(over(79, &[old.clone(), underway.clone()]), ["old"]);
        assert_eq!(over(80, &[old, underway]), Vec::<&str>::new());
    }

    prop_compose! {
        fn any_writer()(
            worth in proptest::option::of(0.0..1e6f64), usual: u32, today: u32, next: u32, underway: bool
        ) -> Writer<'static> {
            let (usual, today, next) = (usual.into(), today.into(), next.into());
            Writer { name: "", worth, usual, today, next, underway }
        }
    }

    proptest! {
        /// Whoever may write fits into the budget, and nobody is stopped while somebody worth less may go on with the
        /// same page-out.
        #[test]
        fn the_budget_holds_and_worth_decides(mut writers in prop::collection::vec(any_writer(), 0..8), a_day: u64) {
            let names: Vec<String> = (0..writers.len()).map(|number| number.to_string()).collect();
            let names: &'static [String] = Vec::leak(names);
            for (writer, name) in writers.iter_mut().zip(names) {
                writer.name = name;
            }
            let today = writers.iter().map(|writer| writer.today).sum();
            let over = Budget { a_day, today }.over(&writers);
            let worth = |writer: &Writer<'_>| writer.worth.unwrap_or(f64::INFINITY);
            for one in writers.iter().filter(|writer| !writer.underway) {
                let may = !over.contains(one.name);
                prop_assert!(!may || today + one.next <= a_day);
                for other in writers.iter().filter(|other| !other.underway) {
                    let worse = worth(other) < worth(one) && other.next >= one.next;
                    prop_assert!(may || !worse || over.contains(other.name));
                }
            }
        }
    }
}
