//! Makes a running program a server: writes its file, in mode observe. Everything in the file that was guessed
//! says from what, since it is the operator who answers for it. Also what `enable` and `disable` write.
//!
//! All calls block (for seconds at worst): not for an async worker thread.

mod error;
mod file;
mod mode;
mod name;
mod ports;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use dormouse_api::adopt::{AdoptRequest, AdoptResult};

use crate::config::{Loaded, Node, ServerFile};
use crate::discover::mounts::CgroupRoot;
use crate::discover::namespace_sockets;
use crate::discover::process::ProcessId;
use crate::discover::profile::{Guess, Ports as Listening, guess};
use crate::discover::resolve::Found;
use crate::discover::selector::Selector;
use crate::discover::sockets::{self, Sockets};
use crate::netns::Helper;
pub use error::AdoptError;
pub use mode::{ModeError, set_mode};
use ports::Ports;

/// Processes whose command lines are looked at: the game is among a server's first (a shell, a wrapper, it).
const COMMAND_LINES: usize = 32;

/// Where a server is found, and what it is called.
struct Candidate {
    selector: Selector,
    found: Found,
    name: String,
}

/// One file, not yet written.
struct Draft {
    name: String,
    file: PathBuf,
    text: String,
    notes: Vec<String>,
}

/// Writes a file for every server that the request names: one for each cgroup that its glob matches. Of
/// several those that can't be adopted are left out and told in the notes; no file is ever written over.
pub fn adopt(
    node: &Node,
    root: &CgroupRoot,
    helper: &Helper,
    loaded: &Loaded,
    request: &AdoptRequest,
) -> Result<AdoptResult, AdoptError> {
    if let Some(profile) = request.profile.as_deref()
        && !loaded.profiles.contains_key(profile)
    {
        let known = loaded.profiles.keys().cloned().collect();
        return Err(AdoptError::UnknownProfile { profile: profile.to_owned(), known });
    }
    let selector: Selector =
        request.select.parse().map_err(|why| AdoptError::Selector { text: request.select.clone(), why })?;
    let mut taken = BTreeSet::new();
    let mut drafts = Vec::new();
    let mut left_out = Vec::new();
    for selector in exact(&selector, root)? {
        let drafted = candidate(selector, root, loaded, &mut taken)
            .and_then(|candidate| draft(candidate, node, helper, loaded, request));
        match drafted {
            Ok(draft) => drafts.push(draft),
            Err(error) => left_out.push(error),
        }
    }
    if drafts.is_empty() && !left_out.is_empty() {
        return Err(left_out.swap_remove(0));
    }
    write(&drafts)?;
    Ok(result(drafts, left_out))
}

/// A glob as one selector a cgroup, by its exact path; a later cgroup that the glob would match is no server
/// that anybody has looked at. Anything else names one server.
fn exact(selector: &Selector, root: &CgroupRoot) -> Result<Vec<Selector>, AdoptError> {
    let exact = |cgroup: &Path| {
        let below = cgroup.strip_prefix(&root.path).unwrap_or(cgroup).to_string_lossy();
        Selector::Cgroup(format!("/{}", glob::Pattern::escape(&below)))
    };
    match selector {
        Selector::Pid(pid) => {
            let found = selector.resolve(root).map_err(AdoptError::Resolve)?;
            Err(AdoptError::Pid { pid: *pid, cgroup: exact(&found.cgroup).to_string() })
        }
        Selector::Cgroup(_) => {
            let matches = selector.matches(root);
            if matches.is_empty() {
                // Says what there is instead.
                selector.resolve(root).map_err(AdoptError::Resolve)?;
            }
            Ok(matches.iter().map(|cgroup| exact(cgroup)).collect())
        }
        _ => Ok(vec![selector.clone()]),
    }
}

fn candidate(
    selector: Selector,
    root: &CgroupRoot,
    loaded: &Loaded,
    taken: &mut BTreeSet<String>,
) -> Result<Candidate, AdoptError> {
    let found = selector.resolve(root).map_err(AdoptError::Resolve)?;
    let path = found.cgroup.strip_prefix(&root.path).unwrap_or(&found.cgroup);
    let path = format!("/{}", path.display());
    let known = loaded.servers.values().find(|server| match &server.file.select {
        Selector::Cgroup(glob) => glob::Pattern::new(glob).is_ok_and(|pattern| pattern.matches(&path)),
        other => other.to_string() == selector.to_string(),
    });
    if let Some(server) = known {
        let (name, file) = (server.file.name.clone(), server.file.file.clone());
        return Err(AdoptError::Known { selector, name, file });
    }
    let wanted = name::of(&selector, &path);
    let name = name::free(&wanted, taken);
    if let Some(server) = loaded.servers.get(&name) {
        return Err(AdoptError::NameTaken { selector, name, file: server.file.file.clone() });
    }
    taken.insert(name.clone());
    Ok(Candidate { selector, found, name })
}

fn draft(
    candidate: Candidate,
    node: &Node,
    helper: &Helper,
    loaded: &Loaded,
    request: &AdoptRequest,
) -> Result<Draft, AdoptError> {
    let Candidate { selector, found, name } = candidate;
    let sockets = listening(&selector, &found, helper)?;
    let usual = loaded.profiles.values().flat_map(|profile| profile.ports.iter().copied()).collect();
    let ports = Ports::of(&sockets, &usual, &ports::ephemeral());
    let (profile, because) = match &request.profile {
        Some(profile) => (profile.clone(), "asked for by the operator".to_owned()),
        None => match guess_from(&found, &ports) {
            Some(Guess { profile, because }) => (profile.to_owned(), because),
            None => return Err(AdoptError::NothingListens { selector }),
        },
    };
    let Some(profile) = loaded.profiles.get(&profile) else {
        let known = loaded.profiles.keys().cloned().collect();
        return Err(AdoptError::UnknownProfile { profile, known });
    };
    let facts =
        text::Facts { selector: &selector, profile, because: &because, ports: &ports, sockets: &sockets };
    let (text, notes) = facts.write();
    let file = node.server_dir.join(format!("{name}.toml"));
    // What we write must be what we read: a name or a command line of a stranger's is in it.
    ServerFile::parse(&file, &text)
        .map_err(|source| AdoptError::Unreadable { selector, source: source.into() })?;
    if file.exists() {
        return Err(AdoptError::Exists { file });
    }
    Ok(Draft { name, file, text, notes })
}

fn listening(selector: &Selector, found: &Found, helper: &Helper) -> Result<Sockets, AdoptError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| AdoptError::Sockets {
        selector: selector.clone(),
        source,
    };
    let mut opened = namespace_sockets(found, helper).map_err(|error| failed(error.into()))?;
    let all = sockets::list(&mut opened.diag).map_err(|error| failed(error.into()))?;
    // Its namespace may hold others: the whole host, a pod's sidecars.
    let own = sockets::inodes(&found.pids).map_err(|error| failed(error.into()))?;
    Ok(all.owned_by(&own))
}

/// By any of its programs, else by its ports.
fn guess_from(found: &Found, ports: &Ports) -> Option<Guess> {
    let mut lines = std::iter::once(found.main)
        .chain(found.pids.iter().take(COMMAND_LINES).filter_map(|&pid| ProcessId::of(pid).ok()))
        .filter_map(|process| process.cmdline().ok());
    let by_program = lines.find_map(|line| guess(&line, Listening::default()));
    by_program.or_else(|| guess(&[], Listening { tcp: &ports.tcp(), udp: &ports.udp() }))
}

/// All of the files, or none.
fn write(drafts: &[Draft]) -> Result<(), AdoptError> {
    for (written, draft) in drafts.iter().enumerate() {
        if let Err(source) = file::create(&draft.file, &draft.text) {
            for draft in &drafts[..written] {
                // Ours, a moment old. One that stays is a server in mode observe: harmless.
                let _ = std::fs::remove_file(&draft.file);
            }
            let file = draft.file.clone();
            return Err(match source.kind() {
                std::io::ErrorKind::AlreadyExists => AdoptError::Exists { file },
                _ => AdoptError::Write { file, source },
            });
        }
    }
    Ok(())
}

/// Several files are told as one text, each under its path.
fn result(drafts: Vec<Draft>, left_out: Vec<AdoptError>) -> AdoptResult {
    let several = drafts.len() > 1;
    let mut result =
        AdoptResult { file: String::new(), text: String::new(), servers: Vec::new(), notes: Vec::new() };
    for draft in drafts {
        let path = draft.file.display().to_string();
        if several {
            if !result.file.is_empty() {
                result.file.push_str(", ");
                result.text.push('\n');
            }
            // Writing to a String cannot fail.
            let _ = writeln!(result.text, "# {path}");
        }
        result.file.push_str(&path);
        result.text.push_str(&draft.text);
        let of = if several { format!("{}: ", draft.name) } else { String::new() };
        result.notes.extend(draft.notes.into_iter().map(|note| format!("{of}{note}")));
        result.servers.push(draft.name);
    }
    result.notes.extend(left_out.into_iter().map(|error| format!("left out: {}", error.whole())));
    result
}
