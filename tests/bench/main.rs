//! The benches: `bench NAME [--quick]` measures, prints what was found, and ends with one line of JSON. Run
//! through `scripts/bench`; needs root.

mod control;
mod fastpath;
mod flood;
mod floor;
mod idle;
mod login;
mod memory;
mod report;
mod scans;
mod sleepers;
mod stats;
mod throughput;
mod wake_doze;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};

#[derive(Parser)]
struct Args {
    name: Name,
    /// Fewer rounds: to see that it works, not for a verdict.
    #[arg(long)]
    quick: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    /// What the door costs an awake server.
    Fastpath,
    /// Waking from a doze against a server that never sleeps.
    WakeDoze,
    /// Scans, pings and probes at sleeping servers.
    Scans,
    /// A flood of SYNs at a sleeper, with conntrack before it.
    Flood,
    /// Five hundred sleepers and quiet; then a hundred players at once.
    #[value(name = "idle-500")]
    Idle,
    /// Memory back from deep against plain demand paging.
    SwapIn,
    /// Memory out to the swap device, and who suffers.
    PageOut,
    /// What the node really gets.
    Handback,
    /// Players from deep.
    DeepJoin,
    /// Twenty deep servers knocked on at once.
    StormDeep,
    /// A full collection after a deep wake.
    JvmGc,
    /// The control plane against a bare axum and sqlx.
    Control,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    println!("load average before: {}", report::load());
    let (name, figures) = match args.name {
        Name::Fastpath => ("fastpath", fastpath::run(args.quick)?),
        Name::WakeDoze => ("wake-doze", wake_doze::run(args.quick)?),
        Name::Scans => ("scans", scans::run(args.quick)?),
        Name::Flood => ("flood", flood::run(args.quick)?),
        Name::Idle => ("idle-500", idle::run(args.quick)?),
        Name::SwapIn => ("swap-in", memory::swap_in::run(args.quick)?),
        Name::PageOut => ("page-out", memory::page_out::run(args.quick)?),
        Name::Handback => ("handback", memory::handback::run(args.quick)?),
        Name::DeepJoin => ("deep-join", memory::deep_join::run(args.quick)?),
        Name::StormDeep => ("storm-deep", memory::storm_deep::run(args.quick)?),
        Name::Control => ("control", control::run(args.quick)?),
        Name::JvmGc => ("jvm-gc", memory::jvm_gc::run(args.quick)?),
    };
    Ok(if report::finish(name, &figures) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
