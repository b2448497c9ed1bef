//! Adding rows up for people.

use std::{collections::BTreeMap, ops::Range};

use dormouse_api::{
    savings::{DaySavings, Paper, Savings, ServerSavings, Sums},
    status::Selector,
};

use super::row::{DAY, Row, Tally};

const MS_PER_HOUR: f64 = 3_600_000.0;
/// Byte-seconds in a GiB-hour.
const GIB_HOUR: f64 = (1u64 << 30) as f64 * 3600.0;

/// The sums of a period, in milliseconds since 1970.
pub fn sum(
    node: String,
    period_ms: Range<u64>,
    servers: &Selector,
    rows: impl IntoIterator<Item = Row>,
) -> Savings {
    let mut by_server: BTreeMap<String, ServerSavings> = BTreeMap::new();
    let mut by_day: BTreeMap<u64, Sums> = BTreeMap::new();
    let mut of_node = Sums::default();
    for row in rows {
        let sums = sums(&row.tally);
        let Some(name) = row.server else {
            of_node.add(&sums);
            continue;
        };
        if !servers.selects(&name, &row.profile) {
            continue;
        }
        by_day.entry(row.start / DAY).or_default().add(&sums);
        let server = by_server.entry(name.clone()).or_insert_with(|| ServerSavings {
            name,
            profile: String::new(),
            sums: Sums::default(),
        });
        // As it was last.
        server.profile = row.profile;
        server.sums.add(&sums);
    }
    Savings {
        node,
        since_at_ms: period_ms.start,
        until_at_ms: period_ms.end,
        covered_hours: of_node.awake_hours,
        headroom_gib_hours: of_node.size_gib_hours,
        servers: by_server.into_values().collect(),
        days: by_day
            .into_iter()
            .map(|(day, sums)| DaySavings { start_at_ms: day * DAY * 1000, sums })
            .collect(),
    }
}

fn sums(tally: &Tally) -> Sums {
    let hours = |ms: u64| ms as f64 / MS_PER_HOUR;
    let gib_hours = |byte_seconds: u64| byte_seconds as f64 / GIB_HOUR;
    Sums {
        awake_hours: hours(tally.awake_ms),
        dozing_hours: hours(tally.dozing_ms),
        deep_hours: hours(tally.deep_ms),
        waking_hours: hours(tally.waking_ms),
        size_gib_hours: gib_hours(tally.size),
        handed_back_gib_hours: gib_hours(tally.handed_back),
        swap_written_bytes: tally.written,
        paper: Paper {
            dozing_hours: hours(tally.paper_dozing_ms),
            deep_hours: hours(tally.paper_deep_ms),
            handed_back_gib_hours: gib_hours(tally.paper_handed_back),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_and_gib_hours() {
        let row = |server: Option<&str>, start, tally| Row {
            server: server.map(str::to_owned),
            profile: server.map(|_| "luanti".to_owned()).unwrap_or_default(),
            start,
            tally,
        };
        let deep =
            Tally { deep_ms: 1_800_000, size: 3600 << 30, handed_back: 1800 << 30, ..Tally::default() };
        let rows = [
            row(None, 0, Tally { awake_ms: 3_600_000, size: 900 << 30, ..Tally::default() }),
            row(Some("a"), 0, deep),
            row(Some("a"), DAY, deep),
            row(Some("b"), 0, Tally { awake_ms: 3_600_000, written: 5, ..Tally::default() }),
        ];
        let all = sum("n".into(), 0..DAY * 2000, &Selector::default(), rows.clone());
        assert_eq!((all.covered_hours, all.headroom_gib_hours), (1.0, 0.25));
        assert_eq!(all.servers.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let total = all.total();
        assert_eq!((total.deep_hours, total.size_gib_hours, total.handed_back_gib_hours), (1.0, 2.0, 1.0));
        assert_eq!(total.swap_written_bytes, 5);
        assert_eq!(all.days.iter().map(|day| day.sums.deep_hours).collect::<Vec<_>>(), [0.5, 0.5]);
        let only = Selector { servers: vec!["b".into()], profile: None };
        assert_eq!(sum("n".into(), 0..1, &only, rows).servers.len(), 1);
    }
}
