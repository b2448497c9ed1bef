//! A throttled server that goes on ticking while what it does not touch goes out. Needs a memory controller on cgroup v2
//! and swap: a machine without runs this very bench in a VM, where times are no figure.

use std::{env, fs, os::unix::process::CommandExt, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use dormouse_daemon::memory::{
    Cancel, cold::page_out_cold, page_out::Bounds, ranges::page_size, swap::Facts,
};
use dormouse_tests::{cgroup::Cgroup, servers::echo::sibling, ticks};

use super::sleeper::Sleeper;
use crate::{
    report::{Figure, Goal},
    stats::{Estimate, median, median_of_rounds},
};

/// Half a CPU.
const THROTTLE: &str = "50000 100000";

pub fn run(quick: bool) -> Result<Vec<Figure>> {
    if !Cgroup::create("probe")?.path().join("memory.reclaim").exists() || Facts::read()?.size() == 0 {
        return Err(in_vm(quick));
    }
    let rounds = if quick { 1 } else { 5 };
    let (mut ratios, mut missed, mut unanswered) = (vec![], vec![], 0);
    for round in 0..rounds {
        let mut server = Sleeper::new(&["--mib", "128"])?;
        // A fifth, in runs that lie all over its memory, 20 times a second; the rest is not touched.
        let set = server.ask(&format!("set runs {}", round + 1))?;
        let touched: u64 = set.strip_prefix("set ").context("the size of the set")?.parse()?;
        fs::write(server.cgroup.path().join("cpu.max"), THROTTLE)?;
        let group = server.group.clone();
        let untouched = group.stat("anon")?.context("memory.stat has anon")? - touched * page_size();
        let tick = || {
            ensure!(!server.ask("go")?.is_empty(), "it has ended");
            Ok(())
        };
        let go_cold = || page_out_cold(&group, Bounds::default(), &Cancel::default(), &mut |_, _| Ok(()));
        let (out, ticks) = ticks::beside(tick, go_cold)?;
        let out = out?;
        println!("round {round}: {untouched} bytes not touched, {out:?}, {ticks:?}");
        ensure!(server.ask("check")?.starts_with("0 "), "its memory is not what it was");
        ratios.push(out.handed_back.bytes as f64 / untouched as f64);
        missed.push(f64::from(ticks.missed) / f64::from(ticks.all) * 100.0);
        unanswered += u64::from(ticks.unanswered);
    }
    Ok(vec![
        Figure::new("handed_back_ratio", median_of_rounds(&ratios), Goal::AtLeast(0.5)),
        Figure::count("unanswered_pings", unanswered),
        Figure::new("missed_ticks_percent", Estimate::exact(median(&missed)), Goal::Reported),
    ])
}

/// Becomes the VM's runner, whose output and exit status are those of the bench inside; an error is why not.
fn in_vm(quick: bool) -> anyhow::Error {
    let become_it = || -> Result<std::io::Error> {
        let runner = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../scripts/vm");
        let limit = if quick { "140" } else { "900" };
        let mut command = Command::new(runner);
        command.args(["-k", "6.12", "-t", limit, "-m", "768", "-s", "1024"]);
        command.arg(env::current_exe()?).arg(sibling("memory-server")?);
        command.args(["--", "bench", "throttled-deep"]).args(quick.then_some("--quick"));
        println!("no memory controller on cgroup v2, or no swap: in a VM");
        Ok(command.exec())
    };
    match become_it() {
        Ok(error) => anyhow::Error::from(error).context("start scripts/vm"),
        Err(error) => error,
    }
}
