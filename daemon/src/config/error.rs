//! What is wrong with a configuration, said so that its author can put it right at once.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A file and, where one is to blame, its line (from 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: PathBuf,
    pub line: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.file.display()),
            None => write!(f, "{}", self.file.display()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: cannot be written: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{place}: not valid TOML: {message}")]
    Syntax { place: Place, message: String },
    #[error("{place}: unknown key `{key}`{}: allowed are {}", did_you_mean(suggestion.as_ref()), allowed.join(", "))]
    UnknownKey { place: Place, key: String, suggestion: Option<String>, allowed: Vec<&'static str> },
    #[error("{place}: {key} = {found}: {expected}")]
    BadValue { place: Place, key: String, found: String, expected: String },
    #[error("{place}: `{key}` is missing: {expected}")]
    Missing { place: Place, key: String, expected: String },
    #[error("{}: no profile `{profile}`{}: there are {}", file.display(), did_you_mean(suggestion.as_ref()), known.join(", "))]
    UnknownProfile { file: PathBuf, profile: String, suggestion: Option<String>, known: Vec<String> },
    #[error("{}: its profile `{profile}` cannot be used: {reason}", file.display())]
    BrokenProfile { file: PathBuf, profile: String, reason: String },
    #[error("server `{name}` is described twice, in {} and in {}: rename or remove one; neither is used", first.display(), second.display())]
    DuplicateServer { name: String, first: PathBuf, second: PathBuf },
    /// A rule broken by the outcome of all layers. `from` is the layer that set the value.
    #[error("{subject}: {key} = {value} (from {from}): {rule}")]
    Rule { subject: String, key: &'static str, value: String, from: String, rule: String },
    #[error("no server `{name}`{}", did_you_mean(suggestion.as_ref()))]
    UnknownServer { name: String, suggestion: Option<String> },
}

impl ConfigError {
    /// The file to look at, where it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Read { path, .. } | Self::Write { path, .. } => Some(path),
            Self::Syntax { place, .. }
            | Self::UnknownKey { place, .. }
            | Self::BadValue { place, .. }
            | Self::Missing { place, .. } => Some(&place.file),
            Self::UnknownProfile { file, .. } | Self::BrokenProfile { file, .. } => Some(file),
            Self::DuplicateServer { second, .. } => Some(second),
            Self::Rule { .. } | Self::UnknownServer { .. } => None,
        }
    }
}

fn did_you_mean(suggestion: Option<&String>) -> String {
    suggestion.map(|word| format!(" (did you mean `{word}`?)")).unwrap_or_default()
}

/// The known word that a typing error most likely meant: at most a third of its letters wrong.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| distance * 3 <= candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.to_owned())
}

/// Levenshtein's distance, in letters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}
