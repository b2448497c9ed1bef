//! The node agent's program.

use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Parser;
use dormouse_daemon::{agent, config, heap};
use tokio::signal::unix::{SignalKind, signal};

/// Puts idle game servers to sleep and wakes them on the first packet of a player
#[derive(Parser)]
#[command(name = "dormoused", version)]
struct Arguments {
    /// The node's configuration; every key of it is optional, and so is the file
    #[arg(long, default_value = config::Node::DEFAULT_FILE)]
    config: PathBuf,
}

fn main() -> anyhow::Result<()> {
    heap::share_one();
    run()
}

#[tokio::main(worker_threads = 2)]
async fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let node = config::Node::load(&arguments.config)?;
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| node.log.as_str().into()),
        )
        .init();
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let handle = agent::start(node, beside_us("dormouse-netns")?)?;
    heap::give_back();
    tracing::info!("dormoused is up");
    loop {
        tokio::select! {
            _ = hangup.recv() => handle.reload(),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    handle.stop().await;
    tracing::info!("dormoused ends; sleepers sleep on, and the guard wakes who is knocked on");
    Ok(())
}

/// The helper is installed beside this program.
fn beside_us(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("the program's own path is unknown")?;
    Ok(own.parent().unwrap_or(Path::new("/")).join(name))
}
