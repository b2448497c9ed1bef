//! The `dormouse` command: a verb for servers, a noun for groups.
#![forbid(unsafe_code)]

mod args;
mod companion;
mod control;
mod exit;
mod output;
mod render;
mod units;
mod verbs;
mod worth;

use std::process::ExitCode;

use clap::Parser;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // Usage errors end here with 2, help and version with 0.
    let cli = args::Cli::parse();
    match verbs::run(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::say(&error),
    }
}
