//! What goes to stdout.

use std::io::{self, Write};

use serde::Serialize;

/// Text without control characters (but line ends): a player's name must not steer an operator's terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// Prints text for people; it ends its own lines.
pub fn text(text: &str) -> io::Result<()> {
    raw(&printable(text))
}

/// Prints as it is.
pub fn raw(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Prints one value for a program and for eyes.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(raw(&format!("{}\n", serde_json::to_string_pretty(value)?))?)
}

/// Prints one value on one line, as one of many.
pub fn json_line(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(raw(&format!("{}\n", serde_json::to_string(value)?))?)
}
