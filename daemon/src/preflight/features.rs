//! What dormouse can do without, but does better with: told at the start, as a metric, and by the same checks in
//! `dormouse preflight`.

use dormouse_api::preflight::{Check, CheckResult};

use super::of_kernel;
use crate::config::Node;

/// A check of preflight's and the value of the metric's label.
const NAMES: [(&str, &str); 10] = [
    ("TC hook", "tcx"),
    ("BTF", "btf"),
    ("membarrier", "membarrier"),
    ("freezer", "freezer"),
    ("cpu controller", "cpu_controller"),
    ("memory controller", "memory_controller"),
    ("memory.reclaim", "reclaim_swappiness"),
    ("memory pressure", "memory_pressure"),
    ("process_madvise", "process_madvise"),
    ("PAGEMAP_SCAN", "pagemap_scan"),
];

/// One feature, and whether it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    pub name: &'static str,
    pub there: bool,
    /// What preflight says of it; `None`: what it needs is missing itself.
    pub check: Option<Check>,
}

/// Every feature, tried on this kernel; takes milliseconds.
pub fn features(node: &Node) -> Vec<Feature> {
    judge(&of_kernel(node))
}

/// One line in the log for each that is not there.
pub fn tell(features: &[Feature]) {
    for feature in features.iter().filter(|feature| !feature.there) {
        let found = feature.check.as_ref().map_or("not tried", |check| check.found.as_str());
        let remedy = feature.check.as_ref().and_then(|check| check.remedy.as_deref()).unwrap_or_default();
        tracing::warn!(feature = feature.name, found, remedy, "this kernel lacks something");
    }
}

fn judge(checks: &[Check]) -> Vec<Feature> {
    let feature = |(check, name): (&str, &'static str)| {
        let check = checks.iter().find(|found| found.name == check).cloned();
        let there = check.as_ref().is_some_and(|check| check.result == CheckResult::Ok);
        Feature { name, there, check }
    };
    NAMES.into_iter().map(feature).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{ok, warn};
    use super::*;

    #[test]
    fn a_feature_is_there_when_its_check_is_content() {
        let checks = [ok("TC hook", "tcx"), warn("PAGEMAP_SCAN", "not there", "a newer kernel")];
        let features = judge(&checks);
        let there = |name| features.iter().find(|feature| feature.name == name).unwrap().there;
        assert!(there("tcx"));
        assert!(!there("pagemap_scan"));
        assert!(!there("reclaim_swappiness"), "not tried: its controller is missing");
    }

    #[test]
    fn every_feature_has_a_check_of_that_name() {
        let checks = of_kernel(&Node::parse(Path::new("/x.toml"), "").unwrap());
        for (check, feature) in NAMES {
            // Tried only where there is a v2 memory controller.
            let found = checks.iter().any(|found| found.name == check);
            assert!(found || feature == "reclaim_swappiness", "{check}");
        }
    }
}
