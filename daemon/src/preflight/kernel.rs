//! The kernel's version and what comes with it.

use std::path::Path;

use dormouse_api::preflight::Check;

use super::{fail, ok, probe, warn};

/// The oldest kernel that the door is tested on.
const OLDEST: (u32, u32) = (6, 1);
/// The first with tcx (kernel/bpf/tcx.c).
const TCX: (u32, u32) = (6, 6);
const BTF: &str = "/sys/kernel/btf/vmlinux";

pub fn checks() -> Vec<Check> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let [kernel, hook] = by_version(release.trim());
    vec![kernel, hook, btf(Path::new(BTF)), membarrier()]
}

fn by_version(release: &str) -> [Check; 2] {
    let upgrade = "install a kernel of Linux 6.1 or later (Debian 12, Ubuntu 24.04)";
    let Some(version) = parse(release) else {
        let found = format!("the version {release:?} can't be read");
        return [warn("kernel", found.clone(), upgrade), warn("TC hook", found, upgrade)];
    };
    let kernel = if version >= OLDEST {
        ok("kernel", release)
    } else {
        fail("kernel", format!("{release}, older than 6.1"), upgrade)
    };
    let hook = if version >= TCX {
        ok("TC hook", "tcx: the door stands before all other programs and is replaced without a gap")
    } else {
        warn(
            "TC hook",
            "clsact (tcx comes with Linux 6.6): other programs of priority 1 may stand before the door",
            "nothing has to be done; a kernel of Linux 6.6 or later takes the doubt away",
        )
    };
    [kernel, hook]
}

fn parse(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn btf(path: &Path) -> Check {
    if path.exists() {
        ok("BTF", path.display().to_string())
    } else {
        let found = format!("{} is not there", path.display());
        warn("BTF", found, "a kernel with CONFIG_DEBUG_INFO_BTF=y (every distribution's own has it)")
    }
}

fn membarrier() -> Check {
    if probe::membarrier_global() {
        ok("membarrier", "a grace period is waited for exactly")
    } else {
        warn(
            "membarrier",
            "the kernel has no global membarrier (nohz_full?): every doze waits 20 ms longer",
            "a kernel with CONFIG_MEMBARRIER=y and without nohz_full CPUs",
        )
    }
}

#[cfg(test)]
mod tests {
    use dormouse_api::preflight::CheckResult::{Fail, Ok, Warn};

    use super::*;

    #[test]
    fn versions_are_judged() {
        for (release, kernel, hook) in [
            ("6.18.44-fc", Ok, Ok),
            ("6.6.0", Ok, Ok),
            ("6.1.0-13-amd64", Ok, Warn),
            ("5.15.0-91-generic", Fail, Warn),
            ("10.0", Ok, Ok),
            ("what", Warn, Warn),
            ("", Warn, Warn),
        ] {
            let checks = by_version(release);
            assert_eq!([checks[0].result, checks[1].result], [kernel, hook], "{release}");
        }
        assert_eq!(btf(Path::new("/no/such/file")).result, Warn);
    }

    proptest::proptest! {
        #[test]
        fn no_release_makes_it_panic(release: String) {
            let _ = by_version(&release);
        }
    }
}
