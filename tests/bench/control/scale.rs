//! A hundred thousand servers against a thousand: what a page and a look-up cost then.

use anyhow::Result;
use tokio::runtime::Runtime;

use super::region::{Database, Running};
use super::{Kind, seed, wrk};
use crate::stats::{Estimate, bootstrap, median};

const FEW: u32 = 1000;
const MANY: u32 = 100_000;
const ARM_SECONDS: u32 = 1;

/// Time of a page, and of a look-up, with many servers by the time with few.
pub fn run(on: Database<'_>, rounds: usize) -> Result<(Estimate, Estimate)> {
    let few = Running::control(on, "scale_few")?;
    let many = Running::control(on, "scale_many")?;
    let runtime = Runtime::new()?;
    runtime.block_on(seed::fill(&few.database, FEW))?;
    runtime.block_on(seed::fill(&many.database, MANY))?;
    let of = |kind| compare(&few, &many, kind, rounds);
    Ok((of(Kind::List)?, of(Kind::Locate)?))
}

fn compare(few: &Running, many: &Running, kind: Kind, rounds: usize) -> Result<Estimate> {
    let less = || wrk::load(few, kind, FEW, ARM_SECONDS);
    let more = || wrk::load(many, kind, MANY, ARM_SECONDS);
    less()?;
    more()?;
    let mut all = vec![];
    for _ in 0..rounds {
        let (first, second, third, last) = (more()?, less()?, less()?, more()?);
        let (many, few) = (f64::midpoint(first, last), f64::midpoint(second, third));
        println!("{} a second: {many:.0} with {MANY} servers, {few:.0} with {FEW}", kind.word());
        all.push(few / many);
    }
    Ok(bootstrap(&all, |drawn| median(&drawn.iter().map(|ratio| **ratio).collect::<Vec<_>>())))
}
