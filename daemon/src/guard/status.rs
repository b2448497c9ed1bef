//! What the guard would see, for people.

use std::{io::Write, time::Duration};

use super::{Paths, Pins, sleepers, watch::Reading};
use crate::door::monotonic_ns;

/// Writes a few lines about the daemon's heartbeat, the off marker and the sleepers.
pub fn status(paths: &Paths, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "dormouse is {}", if paths.is_off() { "off" } else { "on" })?;
    match Pins::open(&paths.pin_dir).map(|pins| pins.reading()) {
        Ok(Reading::Heartbeat { ns, .. }) if ns != 0 => {
            let age = Duration::from_nanos(monotonic_ns().saturating_sub(ns));
            writeln!(out, "heartbeat: {:.1} s ago", age.as_secs_f64())?;
        }
        Ok(_) => writeln!(out, "heartbeat: none yet")?,
        Err(error) => writeln!(out, "heartbeat: {:#}", anyhow::Error::from(error))?,
    }
    let (sleepers, errors) = sleepers(&paths.run_dir)?;
    writeln!(out, "sleepers: {}", sleepers.len())?;
    for sleeper in sleepers {
        writeln!(out, "  {}", sleeper.name)?;
    }
    for error in errors {
        writeln!(out, "  {:#}", anyhow::Error::from(error))?;
    }
    Ok(())
}
