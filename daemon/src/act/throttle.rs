//! `cpu.max` of cgroup v2: leaves a server a sliver of CPU, for games that cannot stand a stopped clock.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
};

const FILE: &str = "cpu.max";
/// The kernel refuses less (`min_bw_runtime_us` in kernel/sched/core.c), in microseconds.
const QUOTA_MIN: u64 = 1000;

/// The bandwidth of a cgroup (kernel: Documentation/admin-guide/cgroup-v2.rst, "cpu.max"), in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuMax {
    /// CPU time in a period; `None` = no limit.
    pub quota: Option<u64>,
    pub period: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ThrottleError {
    #[error("cgroup {} is gone", cgroup.display())]
    Vanished { cgroup: PathBuf },
    #[error(
        "{} has no {FILE}: the cpu controller of cgroup v2 is not enabled for it; add +cpu to \
         cgroup.subtree_control of its parent (systemd: CPUAccounting=yes), or doze by freeze",
        cgroup.display()
    )]
    NoCpuController { cgroup: PathBuf },
    #[error("{}/{FILE} holds {content:?}, which is not `QUOTA PERIOD`", cgroup.display())]
    Unreadable { cgroup: PathBuf, content: String },
    #[error("cannot {action} {}/{FILE}", cgroup.display())]
    Io {
        cgroup: PathBuf,
        action: &'static str,
        #[source]
        source: io::Error,
    },
}

/// The text is not `QUOTA PERIOD` or `max PERIOD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `QUOTA PERIOD` or `max PERIOD`, in microseconds")]
pub struct BadCpuMax;

pub fn read(cgroup: &Path) -> Result<CpuMax, ThrottleError> {
    let content =
        std::fs::read_to_string(cgroup.join(FILE)).map_err(|source| classify(cgroup, "read", source))?;
    content.parse().map_err(|BadCpuMax| ThrottleError::Unreadable { cgroup: cgroup.to_path_buf(), content })
}

/// Sets the bandwidth; putting back is writing what was read before.
pub fn write(cgroup: &Path, value: CpuMax) -> Result<(), ThrottleError> {
    // Without O_CREAT: where the controller is off the file is missing, which is the error to tell.
    std::fs::File::options()
        .write(true)
        .truncate(true)
        .open(cgroup.join(FILE))
        .and_then(|mut file| io::Write::write_all(&mut file, value.to_string().as_bytes()))
        .map_err(|source| classify(cgroup, "write", source))
}

// === impl CpuMax ===

impl CpuMax {
    /// The same period with `percent` of one core, never more than the cgroup had, and never less than the
    /// kernel takes.
    #[must_use]
    pub fn throttled(self, percent: u32) -> Self {
        let wanted = (self.period.saturating_mul(u64::from(percent)) / 100).max(QUOTA_MIN);
        Self { quota: Some(self.quota.map_or(wanted, |had| had.min(wanted))), ..self }
    }
}

impl fmt::Display for CpuMax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.quota {
            Some(quota) => write!(f, "{quota} {}", self.period),
            None => write!(f, "max {}", self.period),
        }
    }
}

impl FromStr for CpuMax {
    type Err = BadCpuMax;

    fn from_str(text: &str) -> Result<Self, BadCpuMax> {
        let mut words = text.split_ascii_whitespace();
        let (Some(quota), Some(period), None) = (words.next(), words.next(), words.next()) else {
            return Err(BadCpuMax);
        };
        let quota = match quota {
            "max" => None,
            number => Some(number.parse().map_err(|_| BadCpuMax)?),
        };
        Ok(Self { quota, period: period.parse().map_err(|_| BadCpuMax)? })
    }
}

fn classify(cgroup: &Path, action: &'static str, source: io::Error) -> ThrottleError {
    let path = cgroup.to_path_buf();
    match source.raw_os_error() {
        Some(libc::ENOENT) if cgroup.exists() => ThrottleError::NoCpuController { cgroup: path },
        Some(libc::ENODEV | libc::ENOENT) => ThrottleError::Vanished { cgroup: path },
        _ => ThrottleError::Io { cgroup: path, action, source },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn throttles_and_restores_in_a_fixture() {
        let cgroup = tempfile::tempdir().unwrap();
        std::fs::write(cgroup.path().join(FILE), "max 100000\n").unwrap();
        let before = read(cgroup.path()).unwrap();
        write(cgroup.path(), before.throttled(5)).unwrap();
        assert_eq!(std::fs::read_to_string(cgroup.path().join(FILE)).unwrap(), "5000 100000");
        write(cgroup.path(), before).unwrap();
        assert_eq!(read(cgroup.path()).unwrap(), CpuMax { quota: None, period: 100_000 });
    }

    #[test]
    fn a_missing_controller_is_not_a_missing_cgroup() {
        let cgroup = tempfile::tempdir().unwrap();
        let limit = CpuMax { quota: None, period: 100_000 };
        assert!(matches!(read(cgroup.path()), Err(ThrottleError::NoCpuController { .. })));
        assert!(matches!(write(cgroup.path(), limit), Err(ThrottleError::NoCpuController { .. })));
        let gone = cgroup.path().join("gone");
        assert!(matches!(read(&gone), Err(ThrottleError::Vanished { .. })));
    }

    #[test]
    fn never_below_the_kernels_minimum_nor_above_what_it_had() {
        assert_eq!(CpuMax { quota: None, period: 10_000 }.throttled(1).quota, Some(1000));
        assert_eq!(CpuMax { quota: Some(2000), period: 100_000 }.throttled(5).quota, Some(2000));
    }

    #[test]
    fn refuses_what_is_not_a_bandwidth() {
        for bad in ["", "max", "5 5 5", "-1 100000", "max max", "max 1e5"] {
            assert_eq!(bad.parse::<CpuMax>(), Err(BadCpuMax), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn text_and_value_are_the_same(quota in proptest::option::of(any::<u64>()), period in any::<u64>()) {
            let value = CpuMax { quota, period };
            prop_assert_eq!(value.to_string().parse(), Ok(value));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in ".*") {
            let _ = text.parse::<CpuMax>();
        }
    }
}
