//! The registry's thresholds, as they were fetched last: what holds while the control plane is away.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use dormouse_api::registry::threshold::NodeProfiles;

pub fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("control/profiles.json")
}

/// `None`: never fetched.
pub fn load(state_dir: &Path) -> io::Result<Option<NodeProfiles>> {
    match fs::read(file(state_dir)) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub fn save(state_dir: &Path, profiles: &NodeProfiles) -> io::Result<()> {
    write(&file(state_dir), &serde_json::to_vec_pretty(profiles)?)
}

/// The whole file or the old one, also after a power cut.
pub(super) fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let new = path.with_extension("new");
    let mut handle = File::create(&new)?;
    handle.write_all(text)?;
    handle.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load(folder.path()).unwrap(), None);
        let profiles = NodeProfiles { revision: "x".to_owned(), ..NodeProfiles::default() };
        save(folder.path(), &profiles).unwrap();
        assert_eq!(load(folder.path()).unwrap(), Some(profiles));
        fs::write(file(folder.path()), "{").unwrap();
        assert!(load(folder.path()).is_err());
    }
}
