//! What this process may do, one capability at a time (capabilities(7)), each with what it is for.

use dormouse_api::preflight::{Check, CheckResult};

use super::{fail, ok, warn};

/// Name, bit (linux/capability.h), what for, what its absence costs.
const WANTED: [(&str, u32, &str, CheckResult); 7] = [
    ("CAP_BPF", 39, "loads the door and its maps", CheckResult::Fail),
    ("CAP_NET_ADMIN", 12, "attaches the door to a veth, lists sockets", CheckResult::Fail),
    ("CAP_NET_RAW", 13, "gives parked packets back", CheckResult::Fail),
    ("CAP_PERFMON", 38, "lets the door read packets by pointers", CheckResult::Fail),
    ("CAP_SYS_PTRACE", 19, "looks at servers' processes, files and namespaces", CheckResult::Fail),
    ("CAP_SYS_NICE", 23, "pages servers out and in; without it nothing goes deep", CheckResult::Warn),
    ("CAP_SYS_RESOURCE", 24, "raises the limits of open files and locked memory", CheckResult::Warn),
];

pub fn checks() -> Vec<Check> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    judge(effective(&status).unwrap_or_default())
}

/// The line `CapEff` of proc_pid_status(5).
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn judge(effective: u64) -> Vec<Check> {
    let check = |&(name, bit, what_for, lack): &(&str, u32, &str, CheckResult)| {
        if effective & (1 << bit) != 0 {
            return ok(name, what_for);
        }
        let found = format!("missing; it {what_for}");
        let remedy = format!(
            "add {name} to AmbientCapabilities= and CapabilityBoundingSet= of the daemon's unit, or run as root"
        );
        if lack == CheckResult::Fail { fail(name, found, remedy) } else { warn(name, found, remedy) }
    };
    WANTED.iter().map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_one_is_told_with_what_it_is_for() {
        let status = "Name:\tx\nCapPrm:\t0\nCapEff:\t000000c000803000\nCapBnd:\tff\n";
        let checks = judge(effective(status).unwrap());
        let result = |name: &str| checks.iter().find(|check| check.name == name).unwrap();
        for there in ["CAP_BPF", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_PERFMON", "CAP_SYS_NICE"] {
            assert_eq!(result(there).result, CheckResult::Ok, "{there}");
        }
        assert_eq!(result("CAP_SYS_PTRACE").result, CheckResult::Fail);
        assert_eq!(result("CAP_SYS_RESOURCE").result, CheckResult::Warn);
        assert!(result("CAP_SYS_PTRACE").remedy.as_ref().unwrap().contains("AmbientCapabilities"));
        assert_eq!(effective("CapEff:\tno\n"), None);
    }

    #[test]
    fn this_process_can_load_the_door() {
        // Root in a container may lack some; these tests need the first three.
        assert!(super::checks()[..3].iter().all(|check| check.result == CheckResult::Ok));
    }
}
