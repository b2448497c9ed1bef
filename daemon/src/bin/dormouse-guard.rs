//! Wakes sleeping servers when the daemon cannot, and turns dormouse off.

use std::{io, process::ExitCode};

use clap::{Parser, Subcommand};
use dormouse_daemon::guard::{self, Paths, Timing};

/// Wakes sleeping servers when the daemon cannot, and turns dormouse off
#[derive(Parser)]
#[command(name = "dormouse-guard", version)]
struct Arguments {
    #[command(flatten)]
    paths: Paths,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch the daemon's heartbeat until SIGTERM
    Run(Timing),
    /// Put back everything that dormouse changed, and stay off until `on`; needs no daemon
    Off,
    /// Let dormouse work again
    On,
    /// Print the heartbeat's age and who sleeps
    Status,
}

fn main() -> anyhow::Result<ExitCode> {
    let Arguments { paths, command } = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .init();
    match command {
        Command::Run(timing) => guard::run(&paths, timing)?,
        Command::Off => {
            if !guard::off::off(&paths, &mut io::stdout())? {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::On => guard::off::on(&paths, &mut io::stdout())?,
        Command::Status => guard::status::status(&paths, &mut io::stdout())?,
    }
    Ok(ExitCode::SUCCESS)
}
