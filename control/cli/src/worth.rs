//! What handed back memory is worth. The arithmetic is written down in docs/savings.md; nothing here is tuned.

use dormouse_api::savings::{Savings, Sums};
use serde::Serialize;

/// A month, as clouds and hosters bill it: 8760 hours / 12.
const MONTH_HOURS: f64 = 730.0;
const TIB: f64 = (1u64 << 40) as f64;

/// What the reader pays and earns, in any currency.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Terms {
    /// Of one GiB of memory for a month.
    pub gib_month: Option<f64>,
    /// The wear of one TiB written to the swap device: its price / the TiB it may be written.
    pub tib_written: f64,
    /// Share of the income that is left today, percent.
    pub margin: Option<f64>,
}

/// The answer with what follows from it.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(flatten)]
    pub savings: Savings,
    pub total: Sums,
    pub worth: Worth,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Worth {
    /// Handed back less headroom, on average over the whole period, GiB. Below 0: the headroom costs more.
    pub net_gib: f64,
    /// What a server holds awake, on average, GiB.
    pub mean_size_gib: f64,
    /// How many servers of the mean size that is room for.
    pub more_servers: u64,
    /// Memory that the servers would hold awake / what they held with headroom. `None` without servers.
    pub density: Option<f64>,
    pub memory_money: Option<f64>,
    pub wear_money: f64,
    /// 1 - (1 - margin) / density, percent.
    pub margin: Option<f64>,
}

impl Report {
    pub fn new(savings: Savings, terms: Terms) -> Self {
        let total = savings.total();
        let worth = worth(&savings, &total, terms);
        Self { savings, total, worth }
    }
}

fn worth(savings: &Savings, total: &Sums, terms: Terms) -> Worth {
    let period_hours = period_hours(savings);
    let net_gib_hours = total.handed_back_gib_hours - savings.headroom_gib_hours;
    let net_gib = if period_hours > 0.0 { net_gib_hours / period_hours } else { 0.0 };
    let mean_size_gib = if total.hours() > 0.0 { total.size_gib_hours / total.hours() } else { 0.0 };
    let more = if mean_size_gib > 0.0 { (net_gib / mean_size_gib).max(0.0).floor() } else { 0.0 };
    let held = total.size_gib_hours - net_gib_hours;
    let density = (total.size_gib_hours > 0.0 && held > 0.0).then(|| total.size_gib_hours / held);
    let margin = terms.margin.zip(density).map(|(margin, density)| 100.0 - (100.0 - margin) / density);
    Worth {
        net_gib,
        mean_size_gib,
        more_servers: more as u64,
        density,
        memory_money: terms.gib_month.map(|price| net_gib_hours / MONTH_HOURS * price),
        wear_money: total.swap_written_bytes as f64 / TIB * terms.tib_written,
        margin,
    }
}

/// The whole period: hours without data count as nothing saved.
pub fn period_hours(savings: &Savings) -> f64 {
    savings.until_at_ms.saturating_sub(savings.since_at_ms) as f64 / 3_600_000.0
}

/// As if servers in mode observe had been allowed to sleep.
pub fn estimated(mut savings: Savings) -> Savings {
    let sums = savings.servers.iter_mut().map(|server| &mut server.sums);
    for sums in sums.chain(savings.days.iter_mut().map(|day| &mut day.sums)) {
        sums.awake_hours = (sums.awake_hours - sums.paper.dozing_hours - sums.paper.deep_hours).max(0.0);
        sums.dozing_hours += sums.paper.dozing_hours;
        sums.deep_hours += sums.paper.deep_hours;
        sums.handed_back_gib_hours += sums.paper.handed_back_gib_hours;
    }
    savings
}

#[cfg(test)]
pub mod tests {
    use dormouse_api::savings::{DaySavings, Paper, ServerSavings};

    use super::*;

    /// Ten days, of which nine have data; a server of 6 GiB that sleeps two thirds of the time.
    pub fn savings() -> Savings {
        let sums = Sums {
            awake_hours: 66.0,
            dozing_hours: 6.0,
            deep_hours: 144.0,
            size_gib_hours: 1296.0,
            handed_back_gib_hours: 900.0,
            swap_written_bytes: 1 << 40,
            ..Sums::default()
        };
        Savings {
            node: "fra-1".into(),
            since_at_ms: 1_794_136_000_000,
            until_at_ms: 1_795_000_000_000,
            covered_hours: 216.0,
            headroom_gib_hours: 36.0,
            servers: vec![ServerSavings { name: "a,<b>".into(), profile: "luanti".into(), sums }],
            days: vec![DaySavings { start_at_ms: 1_794_182_400_000, sums }],
        }
    }

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-9, "{a} is not {b}");
    }

    #[test]
    fn headroom_wear_and_hours_without_data_are_taken_off() {
        let terms = Terms { gib_month: Some(3.65), tib_written: 0.5, margin: Some(58.0) };
        let worth = Report::new(savings(), terms).worth;
        near(worth.net_gib, 864.0 / 240.0);
        near(worth.mean_size_gib, 6.0);
        assert_eq!(worth.more_servers, 0);
        near(worth.density.unwrap(), 1296.0 / (1296.0 - 864.0));
        near(worth.memory_money.unwrap(), 864.0 * 3.65 / 730.0);
        near(worth.wear_money, 0.5);
        // The case study's figures: a margin of 58 % becomes 86 % at a density of 3.0.
        near(worth.margin.unwrap(), 86.0);
    }

    #[test]
    fn nothing_known_is_worth_nothing() {
        let empty = Savings { servers: vec![], days: vec![], headroom_gib_hours: 0.0, ..savings() };
        let worth = Report::new(empty, Terms { margin: Some(58.0), ..Terms::default() }).worth;
        assert_eq!((worth.more_servers, worth.density, worth.margin), (0, None, None));
        near(worth.net_gib, 0.0);
    }

    #[test]
    fn an_estimate_moves_hours_and_invents_none() {
        let mut observed = savings();
        observed.servers[0].sums = Sums {
            awake_hours: 10.0,
            size_gib_hours: 60.0,
            paper: Paper { dozing_hours: 2.0, deep_hours: 6.0, handed_back_gib_hours: 30.0 },
            ..Sums::default()
        };
        let total = estimated(observed.clone()).total();
        near(total.hours(), observed.total().hours());
        assert_eq!((total.awake_hours, total.dozing_hours, total.deep_hours), (2.0, 2.0, 6.0));
        near(total.handed_back_gib_hours, 30.0);
    }
}
