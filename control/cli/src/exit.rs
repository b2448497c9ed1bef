//! How the command ends: 0 ok, 1 failed, 2 usage, 3 refused, 4 unreachable.

use std::io;
use std::process::ExitCode;

use dormouse_api::client::ClientError;
use dormouse_api::remote::RemoteError;
use dormouse_api::{Code, Problem};

use crate::output::printable;

/// Asked for in a way that cannot be meant.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Ends with this status; what there was to say is said.
#[derive(Debug)]
pub struct Silent(pub u8);

impl std::fmt::Display for Silent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit status {}", self.0)
    }
}

impl std::error::Error for Silent {}

/// The exit status that goes with an error.
pub fn status(error: &anyhow::Error) -> u8 {
    if let Some(Silent(status)) = error.downcast_ref() {
        return *status;
    }
    if error.is::<Usage>() {
        return 2;
    }
    // Whoever read our output has read enough.
    if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        return 0;
    }
    let of_problem = |problem: &Problem| match problem.code {
        Code::Refused => 3,
        Code::BadField => 2,
        Code::Unavailable => 4,
        _ => 1,
    };
    match (error.downcast_ref(), error.downcast_ref()) {
        (Some(ClientError::Unreachable { .. }), _) | (_, Some(RemoteError::Unreachable { .. })) => 4,
        (Some(ClientError::Problem(problem)), _) | (_, Some(RemoteError::Problem(problem))) => {
            of_problem(problem)
        }
        _ => 1,
    }
}

/// Says what happened on stderr; about `server`, when it is about one.
pub fn complain(server: Option<&str>, error: &anyhow::Error) {
    let status = status(error);
    if status == 0 || error.is::<Silent>() {
        return;
    }
    let word = if status == 3 { "refused" } else { "dormouse" };
    let about = server.map(|server| format!("{server}: ")).unwrap_or_default();
    eprintln!("{}", printable(&format!("{word}: {about}{error:#}")));
}

/// Says what happened, and gives the status to end with.
pub fn say(error: &anyhow::Error) -> ExitCode {
    complain(None, error);
    ExitCode::from(status(error))
}
