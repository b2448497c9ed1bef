//! One server read, and one changed, as often as it goes: the control plane against the bare one.

use anyhow::Result;
use tokio::runtime::Runtime;

use super::region::{Database, Running};
use super::{Kind, seed, wrk};
use crate::stats::{Estimate, bootstrap, median};

const SERVERS: u32 = 1000;
const ARM_SECONDS: u32 = 1;

pub struct Ratio {
    /// The control plane's answers by the bare one's.
    pub ratio: Estimate,
    /// The control plane's.
    pub per_second: Estimate,
}

/// Answers a second in one round.
struct Round {
    control: f64,
    bare: f64,
}

/// Of reads and of writes; on PostgreSQL also of writes that nobody is told of: what is left to gain.
pub fn run(on: Database<'_>, rounds: usize) -> Result<(Ratio, Ratio, Option<Ratio>)> {
    let control = Running::control(on, "ratio_control")?;
    let bare = Running::bare(on, "ratio_bare")?;
    let runtime = Runtime::new()?;
    let floor = match on {
        Database::Sqlite => None,
        Database::Postgres(..) => Some(Running::three_rows(on, "ratio_floor")?),
    };
    for running in [&control, &bare].into_iter().chain(&floor) {
        runtime.block_on(seed::fill(&running.database, SERVERS))?;
    }
    let of = |kind| compare(&control, &bare, kind, rounds);
    let (read, write) = (of(Kind::Read)?, of(Kind::Write)?);
    let Some(floor) = floor else { return Ok((read, write, None)) };
    println!("instead of the control plane's, the bare one's own writes of three rows:");
    let floor = compare(&floor, &bare, Kind::Write, rounds)?;
    Ok((read, write, Some(floor)))
}

fn compare(control: &Running, bare: &Running, kind: Kind, rounds: usize) -> Result<Ratio> {
    let arm = |at| wrk::load(at, kind, SERVERS, ARM_SECONDS);
    // The first answers are slower on both: connections, prepared statements, the token.
    for at in [control, bare] {
        arm(at)?;
    }
    let mut all = vec![];
    for _ in 0..rounds {
        let (first, second, third, last) = (arm(control)?, arm(bare)?, arm(bare)?, arm(control)?);
        let round = Round { control: f64::midpoint(first, last), bare: f64::midpoint(second, third) };
        println!("{} a second: {:.0}, bare {:.0}", kind.word(), round.control, round.bare);
        all.push(round);
    }
    let of = |one: fn(&Round) -> f64| {
        bootstrap(&all, |drawn| median(&drawn.iter().map(|round| one(round)).collect::<Vec<_>>()))
    };
    Ok(Ratio { ratio: of(|round| round.control / round.bare), per_second: of(|round| round.control) })
}
