//! What sleep was worth, as text, as CSV and as a page.

mod csv;
mod html;
mod plot;

pub use csv::csv;
pub use html::html;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::table::table;
use crate::units;
use crate::worth::{Report, Terms, period_hours};

const GIB: f64 = (1u64 << 30) as f64;

/// A table of the servers, then what follows.
pub fn text(report: &Report, terms: Terms, zone: &TimeZone) -> String {
    let mut text = format!("{}\n", head(report, zone));
    if report.savings.servers.is_empty() {
        text.push_str("There is no data of this period.\n");
        return text;
    }
    let days = period_hours(&report.savings) / 24.0;
    let rows: Vec<[String; 8]> = report
        .savings
        .servers
        .iter()
        .map(|server| {
            let sums = &server.sums;
            [
                server.name.clone(),
                server.profile.clone(),
                hours(sums.awake_hours),
                hours(sums.dozing_hours),
                hours(sums.deep_hours),
                gib(sums.size_gib_hours / sums.hours().max(f64::MIN_POSITIVE)),
                format!("{:.1} GiB·h", sums.handed_back_gib_hours),
                gib(sums.swap_written_bytes as f64 / GIB / days.max(f64::MIN_POSITIVE)),
            ]
        })
        .collect();
    let heads = ["SERVER", "PROFILE", "AWAKE", "DOZING", "DEEP", "SIZE", "HANDED BACK", "WRITTEN/DAY"];
    text.push_str(&table(heads, &rows));
    let lines = conclusions(report, terms).into_iter().map(|(name, value)| format!("{name:<13}{value}\n"));
    text.extend(lines);
    text
}

/// Which node, which period, and of how much of it there is data.
fn head(report: &Report, zone: &TimeZone) -> String {
    let savings = &report.savings;
    let hours = period_hours(savings);
    let covered = match savings.covered_hours {
        covered if covered >= hours * 0.995 => String::new(),
        covered => format!("; data of {:.0} %, the rest counts as nothing saved", covered / hours * 100.0),
    };
    format!(
        "{}  {} to {}{covered}",
        savings.node,
        moment(savings.since_at_ms, zone),
        moment(savings.until_at_ms, zone)
    )
}

/// Each with its name.
fn conclusions(report: &Report, terms: Terms) -> Vec<(&'static str, String)> {
    let (total, worth) = (&report.total, &report.worth);
    let mut lines = vec![(
        "Handed back",
        format!(
            "{:.1} GiB·h less {:.1} of headroom for wakes: {} at any time",
            total.handed_back_gib_hours,
            report.savings.headroom_gib_hours,
            gib(worth.net_gib)
        ),
    )];
    if let Some(density) = worth.density {
        lines.push(("Density", format!("{density:.2} servers where one stood")));
    }
    lines.push((
        "Room for",
        format!(
            "{} of the mean size, {}",
            units::count(worth.more_servers, "more server", "more servers"),
            gib(worth.mean_size_gib)
        ),
    ));
    if let (Some(money), Some(price)) = (worth.memory_money, terms.gib_month) {
        let wear = match terms.tib_written {
            0.0 => "; wear of the drive not counted (--wear-price)".to_owned(),
            price => format!(", less {:.2} of wear at {price:.2} a TiB written", worth.wear_money),
        };
        let net = money - worth.wear_money;
        lines.push(("Worth", format!("{net:.2}: {money:.2} at {price:.2} a GiB and month{wear}")));
    }
    if let (Some(after), Some(before)) = (worth.margin, terms.margin) {
        lines.push(("Margin", format!("{before:.0} % becomes {after:.0} % at this density")));
    }
    lines
}

fn moment(at_ms: u64, zone: &TimeZone) -> String {
    match i64::try_from(at_ms).ok().and_then(|at| Timestamp::from_millisecond(at).ok()) {
        Some(at) => at.to_zoned(zone.clone()).strftime("%F %R").to_string(),
        None => "?".to_owned(),
    }
}

fn hours(hours: f64) -> String {
    format!("{hours:.1} h")
}

fn gib(gib: f64) -> String {
    format!("{gib:.1} GiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worth::tests::savings;

    #[test]
    fn a_table_and_what_follows() {
        let terms = Terms { gib_month: Some(3.65), tib_written: 0.5, margin: Some(58.0) };
        assert_eq!(
            text(&Report::new(savings(), terms), terms, &TimeZone::UTC),
            "\
fra-1  2026-11-08 11:06 to 2026-11-18 11:06; data of 90 %, the rest counts as nothing saved
SERVER  PROFILE  AWAKE   DOZING  DEEP     SIZE     HANDED BACK  WRITTEN/DAY
a,<b>   luanti   66.0 h  6.0 h   144.0 h  6.0 GiB  900.0 GiB·h  102.4 GiB
Handed back  900.0 GiB·h less 36.0 of headroom for wakes: 3.6 GiB at any time
Density      3.00 servers where one stood
Room for     0 more servers of the mean size, 6.0 GiB
Worth        3.82: 4.32 at 3.65 a GiB and month, less 0.50 of wear at 0.50 a TiB written
Margin       58 % becomes 86 % at this density
"
        );
    }

    #[test]
    fn no_data_is_said() {
        let mut empty = savings();
        empty.servers.clear();
        let text = text(&Report::new(empty, Terms::default()), Terms::default(), &TimeZone::UTC);
        assert!(text.ends_with("There is no data of this period.\n"), "{text}");
    }
}
