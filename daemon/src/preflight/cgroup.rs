//! Where cgroup v2 is, what it can do here, and whether a freeze works: tried on an empty cgroup of our own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dormouse_api::preflight::Check;

use super::{fail, ok, warn, whole};
use crate::act::freezer::{FreezeError, Freezer};
use crate::config::Node;
use crate::discover::mounts::{CgroupRoot, Controllers, MountError};

/// An empty cgroup freezes at once.
const FREEZE: Duration = Duration::from_millis(500);
const PURE: &str = "boot with systemd.unified_cgroup_hierarchy=1 (pure cgroup v2)";

pub fn checks(node: &Node) -> Vec<Check> {
    let root = match &node.cgroup_root {
        None => CgroupRoot::find(),
        Some(path) => at(path),
    };
    let root = match root {
        Ok(root) => root,
        Err(error) => return vec![fail("cgroup v2", whole(error), "mount it, or set cgroup_root")],
    };
    let hierarchies = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let form = if is_hybrid(&hierarchies) { "hybrid, beside v1" } else { "pure v2" };
    let mut checks = vec![ok("cgroup v2", format!("{} ({form})", root.path.display()))];
    checks.extend(controllers(root.controllers));
    checks.extend(trial(&root));
    checks
}

fn at(path: &Path) -> Result<CgroupRoot, MountError> {
    Ok(CgroupRoot { path: path.to_owned(), controllers: Controllers::of(path)? })
}

/// A line of a v1 hierarchy has a number and controllers (cgroups(7)).
fn is_hybrid(hierarchies: &str) -> bool {
    hierarchies.lines().any(|line| {
        let mut fields = line.split(':');
        fields.next() != Some("0")
            && fields.next().is_some_and(|names| !names.is_empty() && !names.contains('='))
    })
}

fn controllers(there: Controllers) -> [Check; 2] {
    let cpu = if there.cpu {
        ok("cpu controller", "servers can be throttled (cpu.max)")
    } else {
        let found = "not on cgroup v2: no cpu.max, so a server that may not be frozen stays awake";
        warn("cpu controller", found, PURE)
    };
    let memory = if there.memory {
        ok("memory controller", "memory handed back is measured for each server (memory.current)")
    } else {
        let found = "not on cgroup v2: page-outs run one at a time, and memory handed back is estimated";
        warn("memory controller", found, PURE)
    };
    [cpu, memory]
}

fn trial(root: &CgroupRoot) -> Vec<Check> {
    let trial = match Trial::new(root) {
        Ok(trial) => trial,
        Err(error) => {
            let found = format!("no cgroup can be made in {}: {error}", root.path.display());
            return vec![fail("freezer", found, "run as root, with the host's cgroups mounted for writing")];
        }
    };
    let freezer = match freeze(&trial.0) {
        Ok(()) => ok("freezer", "an empty cgroup was frozen and let go"),
        Err(error) => fail("freezer", whole(error), "Linux 5.2 or later, with cgroups mounted for writing"),
    };
    let mut checks = vec![freezer];
    if root.controllers.memory {
        checks.push(reclaim(&trial.0));
    }
    checks
}

fn freeze(cgroup: &Path) -> Result<(), FreezeError> {
    let mut freezer = Freezer::open(cgroup)?;
    freezer.freeze(FREEZE)?;
    freezer.thaw()?;
    freezer.wait_thawed(FREEZE)
}

/// Nothing is reclaimed: zero bytes are asked for, of a cgroup that is empty.
fn reclaim(cgroup: &Path) -> Check {
    let name = "memory.reclaim";
    let file = cgroup.join("memory.reclaim");
    if !file.exists() {
        return warn(
            name,
            "not there (the root's cgroup.subtree_control lacks memory, or Linux before 5.19)",
            "echo +memory > /sys/fs/cgroup/cgroup.subtree_control; else pages are swept by reading them",
        );
    }
    // `max` since Linux 6.16, a number up to 200 since 6.9 (Documentation/admin-guide/cgroup-v2.rst).
    match ["max", "200"].iter().find(|word| fs::write(&file, format!("0 swappiness={word}")).is_ok()) {
        Some(word) => ok(name, format!("takes swappiness={word}")),
        None => warn(
            name,
            "takes no swappiness: it would throw out file pages first, so pages are swept by reading them",
            "Linux 6.9 or later makes going deep quicker",
        ),
    }
}

/// A cgroup that goes away.
struct Trial(PathBuf);

impl Trial {
    fn new(root: &CgroupRoot) -> std::io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = root.path.join(format!("dormouse-preflight-{}-{count}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use dormouse_api::preflight::CheckResult;

    use super::*;

    #[test]
    fn hybrid_is_told_from_pure() {
        assert!(!is_hybrid("0::/system.slice/x\n"));
        assert!(!is_hybrid("1:name=systemd:/\n0::/\n"));
        assert!(is_hybrid("4:memory:/\n0::/\n"));
        assert!(!is_hybrid(""));
    }

    #[test]
    fn this_machine_s_freezer_works_and_the_cgroup_goes_away() {
        let root = CgroupRoot::find().unwrap();
        let checks = trial(&root);
        assert_eq!(checks[0].result, CheckResult::Ok, "{checks:?}");
        let own = format!("dormouse-preflight-{}", std::process::id());
        let left = fs::read_dir(&root.path).unwrap().flatten();
        assert!(!left.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().starts_with(&own)));
    }

    #[test]
    fn what_a_controller_is_for_is_told() {
        let none = controllers(Controllers::default());
        assert!(none.iter().all(|check| check.result == CheckResult::Warn && check.remedy.is_some()));
        let all = controllers(Controllers { cpu: true, memory: true });
        assert!(all.iter().all(|check| check.result == CheckResult::Ok));
    }

    #[test]
    fn reclaim_is_judged_by_its_file() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(reclaim(directory.path()).result, CheckResult::Warn);
        fs::write(directory.path().join("memory.reclaim"), "").unwrap();
        assert_eq!(reclaim(directory.path()).found, "takes swappiness=max");
        // A freezer that is none: the files of a cgroup are missing.
        assert!(matches!(freeze(directory.path()), Err(FreezeError::NotFreezable { .. })));
        assert!(at(directory.path()).is_err());
    }
}
