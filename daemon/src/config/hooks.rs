//! What an operator wants done around a doze: a program, or a command over RCON.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::error::ConfigError;
use super::reader::Section;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Its success is save evidence: the world is saved before the freeze.
    pub before_doze: Option<Hook>,
    pub after_wake: Option<Hook>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    pub action: Action,
    /// Then it has failed.
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Program and arguments, no shell.
    Exec(Vec<String>),
    Rcon(Rcon),
}

/// A command over Source RCON, spoken in the server's own network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rcon {
    pub address: SocketAddr,
    /// Secrets come from files.
    pub password_file: PathBuf,
    pub command: String,
    /// A text in the answer without which the command has failed; `None` = any answer will do.
    pub expect: Option<String>,
}

impl Hooks {
    pub(super) fn read(mut section: Section<'_>) -> Result<Self, ConfigError> {
        let mut hook = |key| section.section(key)?.map(read_hook).transpose();
        let hooks = Self { before_doze: hook("before_doze")?, after_wake: hook("after_wake")? };
        section.finish()?;
        Ok(hooks)
    }
}

fn read_hook(mut section: Section<'_>) -> Result<Hook, ConfigError> {
    let timeout = section.optional("timeout")?.unwrap_or(Duration::from_secs(30));
    let exec = section.entry("exec");
    let rcon = section.entry("rcon");
    let action = match (exec, rcon) {
        (Some(exec), None) => {
            let argv: Vec<String> = exec.read()?;
            if !argv.first().is_some_and(|program| program.starts_with('/')) {
                return Err(
                    exec.bad("expected a program by its absolute path, then its arguments".to_owned())
                );
            }
            Action::Exec(argv)
        }
        (None, Some(rcon)) => Action::Rcon(read_rcon(rcon.section()?)?),
        (Some(_), Some(rcon)) => return Err(rcon.bad("a hook is either exec or rcon, not both".to_owned())),
        (None, None) => {
            return Err(section
                .missing("exec", "a hook needs either exec = [\"/path\", …] or rcon = { … }".to_owned()));
        }
    };
    section.finish()?;
    Ok(Hook { action, timeout })
}

fn read_rcon(mut section: Section<'_>) -> Result<Rcon, ConfigError> {
    let rcon = Rcon {
        address: section.required("address")?,
        password_file: section.required("password_file")?,
        command: section.required("command")?,
        expect: section.optional("expect")?,
    };
    section.finish()?;
    Ok(rcon)
}
