//! Verdicts on what games, strangers and probes say first.

mod common;
mod luanti;
mod minecraft;
mod probe;
mod teeworlds;
