//! What a bench ends with: a line a figure for people, one line of JSON for programs, and a verdict.

use std::fs;

use serde_json::{Map, Value, json};

use crate::stats::Estimate;

/// What a figure is held to, by the bound of its interval that is worse.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// Told, not judged.
    Reported,
}

impl Goal {
    fn verdict(self, estimate: Estimate) -> Option<bool> {
        match self {
            Self::AtMost(limit) => Some(estimate.high <= limit),
            Self::AtLeast(limit) => Some(estimate.low >= limit),
            Self::Reported => None,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(0.0) => "0".to_owned(),
            Self::AtMost(limit) => format!("≤ {limit}"),
            Self::AtLeast(limit) => format!("≥ {limit}"),
            Self::Reported => "reported".to_owned(),
        }
    }
}

/// One measured number.
pub struct Figure {
    pub name: &'static str,
    pub estimate: Estimate,
    pub goal: Goal,
}

impl Figure {
    pub fn new(name: &'static str, estimate: Estimate, goal: Goal) -> Self {
        Self { name, estimate, goal }
    }

    pub fn count(name: &'static str, count: u64) -> Self {
        Self::new(name, Estimate::exact(count as f64), Goal::AtMost(0.0))
    }
}

/// Prints everything; whether every goal was met. The rows are those of the table in docs/benchmarks.md.
pub fn finish(bench: &str, figures: &[Figure]) -> bool {
    let mut passed = true;
    println!("load average now: {}", load());
    for Figure { name, estimate, goal } in figures {
        let verdict = goal.verdict(*estimate);
        passed &= verdict != Some(false);
        let word = verdict.map_or("–", |met| if met { "pass" } else { "**fail**" });
        let interval = if estimate.low.to_bits() == estimate.high.to_bits() {
            String::new()
        } else {
            format!("{} … {}", round(estimate.low), round(estimate.high))
        };
        println!(
            "| {bench} | `{name}` | {} | {interval} | {} | {word} |",
            round(estimate.value),
            goal.text()
        );
    }
    let values: Map<String, Value> =
        figures.iter().map(|figure| (figure.name.to_owned(), json!(round(figure.estimate.value)))).collect();
    println!("{}", json!({ "bench": bench, "figures": values }));
    passed
}

/// The 1, 5 and 15 minute load averages (proc_loadavg(5)).
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Three decimals: no figure here is known better.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worse_bound_decides() {
        let estimate = Estimate { value: 1.9, low: 1.7, high: 2.1 };
        assert_eq!(Goal::AtMost(2.0).verdict(estimate), Some(false));
        assert_eq!(Goal::AtLeast(1.6).verdict(estimate), Some(true));
        assert_eq!(Goal::Reported.verdict(estimate), None);
    }
}
