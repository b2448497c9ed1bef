//! Which local processes probe servers: a kubelet, a monitor on the node. They are known by their cgroups.

use std::{collections::BTreeSet, fmt, fs, io, os::unix::fs::MetadataExt, path::Path, str::FromStr};

use super::{mounts::CgroupRoot, resolve::directories};

/// Where kubelets run under systemd: of their own, or inside k3s and RKE2. Not a container engine's unit: its
/// proxy for published ports sends what players say.
const DEFAULT: [&str; 3] =
    ["/system.slice/kubelet.service", "/system.slice/k3s*.service", "/system.slice/rke2-*.service"];

/// The cgroups of probers, as a glob below the cgroup v2 root; cgroups below a match belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProberGlob(String);

impl ProberGlob {
    pub fn defaults() -> Vec<Self> {
        DEFAULT.map(|glob| Self(glob.to_owned())).to_vec()
    }
}

/// It names no cgroup below the root.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAGlob;

impl FromStr for ProberGlob {
    type Err = NotAGlob;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<_> = text.split('/').filter(|part| !part.is_empty()).collect();
        let sound = text.starts_with('/')
            && !parts.is_empty()
            && !parts.iter().any(|part| matches!(*part, "." | ".."))
            && glob::Pattern::new(text).is_ok();
        if sound { Ok(Self(text.to_owned())) } else { Err(NotAGlob) }
    }
}

impl fmt::Display for ProberGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The ids of all cgroups that are probers' now; a service that was restarted has a new one. Blocks.
pub fn prober_ids(globs: &[ProberGlob], root: &CgroupRoot) -> BTreeSet<u64> {
    // One that vanished between two looks is no prober any more.
    let all = globs.iter().flat_map(|glob| directories(root, &glob.0));
    all.filter_map(|cgroup| tree_ids(&cgroup).ok()).flatten().collect()
}

/// The ids of a cgroup and of all below it: a socket belongs to the cgroup of the process that made it. The
/// inode of a cgroup's directory is its id (fs/kernfs, 64-bit).
///
/// # Errors
/// A directory can't be read.
pub fn tree_ids(cgroup: &Path) -> io::Result<Vec<u64>> {
    let mut ids = vec![fs::metadata(cgroup)?.ino()];
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            ids.extend(tree_ids(&entry.path())?);
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_name_cgroups_below_the_root() {
        for good in DEFAULT.into_iter().chain(["/monitor", "/*/gatus.service"]) {
            assert_eq!(good.parse::<ProberGlob>().unwrap().to_string(), good);
        }
        for bad in ["", "/", "system.slice", "/a/../b", "/a/["] {
            assert_eq!(bad.parse::<ProberGlob>(), Err(NotAGlob), "{bad}");
        }
    }

    #[test]
    fn a_match_brings_what_is_below_it() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["system.slice/k3s.service/child", "system.slice/k3s-agent.service", "system.slice/x"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let id = |folder: &str| fs::metadata(root.path().join(folder)).unwrap().ino();
        let root_at = CgroupRoot { path: root.path().to_owned(), ..CgroupRoot::find().unwrap() };
        let found = prober_ids(&ProberGlob::defaults(), &root_at);
        let expected =
            ["system.slice/k3s.service", "system.slice/k3s.service/child", "system.slice/k3s-agent.service"];
        assert_eq!(found, expected.into_iter().map(id).collect());
    }
}
