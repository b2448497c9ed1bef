//! The control plane against a bare axum and sqlx, on both databases; nodes' reports beside changes; ten thousand
//! times as many servers; and what it weighs when nobody asks.
//!
//! Servers and databases run on one core, load on the other.

mod ratio;
mod region;
mod reports;
mod scale;
mod seed;
mod wrk;

use std::time::Duration;

use anyhow::Result;
use dormouse_tests::databases::{Postgres, Redis};

use crate::report::{Figure, Goal};
use crate::stats::Estimate;
use region::{Database, Running};

const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
    List,
    Locate,
}

impl Kind {
    /// As load.lua knows it.
    const fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::List => "list",
            Self::Locate => "locate",
        }
    }
}

/// One database's figures.
struct Measured {
    read: ratio::Ratio,
    write: ratio::Ratio,
    floor: Option<ratio::Ratio>,
    p99_ms: Estimate,
    list: Estimate,
    locate: Estimate,
    rss_mib: f64,
}

pub fn run(quick: bool) -> Result<Vec<Figure>> {
    let on_sqlite = measure(Database::Sqlite, quick)?;
    let (postgres, redis) = (Postgres::start(SERVER_CORE)?, Redis::start(SERVER_CORE)?);
    let on_postgres = measure(Database::Postgres(&postgres, &redis), quick)?;
    let (s, p) = (&on_sqlite, &on_postgres);
    let at_least = |name, sqlite: Estimate, postgres: Estimate| {
        let worse = if sqlite.low < postgres.low { sqlite } else { postgres };
        Figure::new(name, worse, Goal::AtLeast(0.7))
    };
    let at_most = |name, sqlite: Estimate, postgres: Estimate, limit| {
        let worse = if sqlite.high > postgres.high { sqlite } else { postgres };
        Figure::new(name, worse, Goal::AtMost(limit))
    };
    let told = |name, estimate| Figure::new(name, estimate, Goal::Reported);
    let mut figures = vec![
        at_least("read_ratio_to_bare", s.read.ratio, p.read.ratio),
        told("read_ratio_sqlite", s.read.ratio),
        told("read_ratio_postgres", p.read.ratio),
        told("reads_per_s_sqlite", s.read.per_second),
        told("reads_per_s_postgres", p.read.per_second),
        at_least("write_ratio_to_bare", s.write.ratio, p.write.ratio),
        told("write_ratio_sqlite", s.write.ratio),
        told("write_ratio_postgres", p.write.ratio),
        told("writes_per_s_sqlite", s.write.per_second),
        told("writes_per_s_postgres", p.write.per_second),
        at_most("p99_ms", s.p99_ms, p.p99_ms, 50.0),
        told("p99_ms_sqlite", s.p99_ms),
        told("p99_ms_postgres", p.p99_ms),
        at_most("list_ratio", s.list, p.list, 1.3),
        told("list_ratio_sqlite", s.list),
        told("list_ratio_postgres", p.list),
        at_most("locate_ratio", s.locate, p.locate, 1.3),
        told("locate_ratio_sqlite", s.locate),
        told("locate_ratio_postgres", p.locate),
        at_most("idle_rss_mib", Estimate::exact(s.rss_mib), Estimate::exact(p.rss_mib), 40.0),
        told("idle_rss_mib_sqlite", Estimate::exact(s.rss_mib)),
        told("idle_rss_mib_postgres", Estimate::exact(p.rss_mib)),
    ];
    figures.extend(p.floor.as_ref().map(|floor| told("write_floor_postgres", floor.ratio)));
    Ok(figures)
}

fn measure(on: Database<'_>, quick: bool) -> Result<Measured> {
    println!("-- {}", on.word());
    let rss_mib = idle(on)?;
    let rounds = if quick { 2 } else { 10 };
    let (read, write, floor) = ratio::run(on, rounds)?;
    let p99_ms = reports::run(on, quick)?;
    let (list, locate) = scale::run(on, rounds)?;
    Ok(Measured { read, write, floor, p99_ms, list, locate, rss_mib })
}

/// Started, and asked nothing for a few seconds.
fn idle(on: Database<'_>) -> Result<f64> {
    let control = Running::control(on, "idle")?;
    std::thread::sleep(Duration::from_secs(5));
    let mib = control.rss_mib()?;
    println!("idle: {mib:.1} MiB resident");
    Ok(mib)
}
