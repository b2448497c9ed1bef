//! What an operator wants done around a doze, in bounded time: a program, or a command over RCON.

mod exec;
mod rcon;

use std::time::Duration;

use crate::config::{Action, Hook};
pub use exec::ExecError;
pub use rcon::RconError;
#[cfg(fuzzing)]
pub use rcon::fuzz as fuzz_rcon;

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    BeforeDoze,
    AfterWake,
}

#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error("{what} took longer than {} and was ended", humantime::format_duration(*.timeout))]
    TimedOut { what: String, timeout: Duration },
    #[error("{0}")]
    Exec(#[from] ExecError),
    #[error("{0}")]
    Rcon(#[from] RconError),
}

impl Moment {
    /// The hook's key in the server file.
    pub fn name(self) -> &'static str {
        match self {
            Self::BeforeDoze => "before_doze",
            Self::AfterWake => "after_wake",
        }
    }
}

/// Runs a hook of a server; dropped half-way, it ends what it started.
pub async fn run(hook: &Hook, server: &str, moment: Moment) -> Result<(), HookError> {
    let timeout = hook.timeout;
    let done = async {
        match &hook.action {
            Action::Exec(argv) => Ok(exec::run(argv, server, moment).await?),
            Action::Rcon(rcon) => Ok(rcon::run(rcon).await?),
        }
    };
    match tokio::time::timeout(timeout, done).await {
        Ok(result) => result,
        Err(_) => Err(HookError::TimedOut { what: describe(&hook.action), timeout }),
    }
}

/// The hook for people, without its arguments: `RCON save-all`, `/usr/local/bin/save`.
pub fn describe(action: &Action) -> String {
    match action {
        Action::Exec(argv) => argv.first().cloned().unwrap_or_default(),
        Action::Rcon(rcon) => format!("RCON {}", rcon.command.split(' ').next().unwrap_or_default()),
    }
}
