//! What a restarted daemon must know of its sleepers: slot and stage, one small file a server, worth nothing
//! after a reboot.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    failpoint,
    stage::{Demotion, Saved},
    undo::name_on_disk,
};

#[derive(Serialize, Deserialize)]
pub struct Record {
    boot: String,
    pub name: String,
    pub slot: u32,
    pub saved: Saved,
}

impl Record {
    pub fn new(name: &str, slot: u32, saved: Saved) -> Self {
        Self { boot: boot_id(), name: name.to_owned(), slot, saved }
    }
}

/// The identity of this boot (Documentation/admin-guide/sysctl/kernel.rst, "random").
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn file_name(server: &str) -> String {
    format!("{}.json", name_on_disk(server))
}

fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    failpoint::at("store-written");
    fs::rename(new, path)
}

fn path(run_dir: &Path, server: &str) -> PathBuf {
    run_dir.join("servers").join(file_name(server))
}

/// # Errors
/// The run directory can't be written.
pub fn store(run_dir: &Path, name: &str, slot: u32, saved: Saved) -> io::Result<()> {
    let record = Record::new(name, slot, saved);
    write_whole(&path(run_dir, name), &serde_json::to_string(&record).map_err(io::Error::other)?)
}

/// A server that is no longer managed needs no record.
pub fn forget(run_dir: &Path, name: &str) {
    let _ = fs::remove_file(path(run_dir, name));
}

/// Every record of this boot.
pub fn load(run_dir: &Path) -> Vec<Record> {
    let Ok(files) = fs::read_dir(run_dir.join("servers")) else { return vec![] };
    let boot = boot_id();
    files
        .flatten()
        .filter(|file| file.path().extension().is_some_and(|extension| extension == "json"))
        .filter_map(|file| serde_json::from_str::<Record>(&fs::read_to_string(file.path()).ok()?).ok())
        .filter(|record| record.boot == boot)
        .collect()
}

fn demotion_path(state_dir: &Path, server: &str) -> PathBuf {
    state_dir.join("demotions").join(file_name(server))
}

/// A demotion outlives the boot.
///
/// # Errors
/// The state directory can't be written.
pub fn store_demotion(state_dir: &Path, server: &str, demotion: &Demotion) -> io::Result<()> {
    let text = serde_json::to_string_pretty(demotion).map_err(io::Error::other)?;
    write_whole(&demotion_path(state_dir, server), &text)
}

pub fn load_demotion(state_dir: &Path, server: &str) -> Option<Demotion> {
    serde_json::from_str(&fs::read_to_string(demotion_path(state_dir, server)).ok()?).ok()
}

pub fn forget_demotion(state_dir: &Path, server: &str) {
    let _ = fs::remove_file(demotion_path(state_dir, server));
}
