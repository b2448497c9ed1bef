//! Why nothing was adopted.

use std::io;
use std::path::PathBuf;

use dormouse_api::Problem;

use crate::config::ConfigError;
use crate::discover::resolve::ResolveError;
use crate::discover::selector::{ParseSelectorError, Selector};

#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    #[error("{text:?}: {why}")]
    Selector { text: String, why: ParseSelectorError },
    #[error("no profile is called {profile}: there are {}", known.join(", "))]
    UnknownProfile { profile: String, known: Vec<String> },
    #[error(transparent)]
    Resolve(ResolveError),
    #[error("pid {pid} is gone after a restart: adopt its cgroup, {cgroup}")]
    Pid { pid: i32, cgroup: String },
    #[error("{selector} is server {name} already ({})", file.display())]
    Known { selector: Selector, name: String, file: PathBuf },
    #[error("{selector} would be called {name}, as the server in {} is: rename that one", file.display())]
    NameTaken { selector: Selector, name: String, file: PathBuf },
    #[error("{} is there already and is not written over: rename or remove it", file.display())]
    Exists { file: PathBuf },
    #[error(
        "{selector} listens on no port that others reach, and its program is not known: wait until it has \
         started, or name its profile with -p"
    )]
    NothingListens { selector: Selector },
    #[error("the sockets of {selector} can't be listed")]
    Sockets { selector: Selector, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the file made for {selector} can't be read again, so it is not written; write one by hand")]
    Unreadable { selector: Selector, source: Box<ConfigError> },
    #[error("cannot write {}", file.display())]
    Write { file: PathBuf, source: io::Error },
}

impl From<AdoptError> for Problem {
    fn from(error: AdoptError) -> Self {
        let problem: fn(String) -> Self = match error {
            AdoptError::Selector { .. } => |text| Self::bad_field("select", text),
            AdoptError::UnknownProfile { .. } => |text| Self::bad_field("profile", text),
            AdoptError::Sockets { .. } | AdoptError::Unreadable { .. } | AdoptError::Write { .. } => {
                |text| Self::internal(text)
            }
            AdoptError::Resolve(_)
            | AdoptError::Pid { .. }
            | AdoptError::Known { .. }
            | AdoptError::NameTaken { .. }
            | AdoptError::Exists { .. }
            | AdoptError::NothingListens { .. } => |text| Self::refused(text),
        };
        problem(error.whole())
    }
}

impl AdoptError {
    /// The error with all its sources, as an operator reads it.
    pub(super) fn whole(self) -> String {
        format!("{:#}", anyhow::Error::from(self))
    }
}
