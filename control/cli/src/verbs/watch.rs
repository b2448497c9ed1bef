//! Verbs that can go on: `status -w`, `events [-w]`. They end with Ctrl-C or with the reader.

use std::io::{self, IsTerminal};
use std::time::Duration;

use dormouse_api::event::EventFilter;
use dormouse_api::status::Selector;

use super::Context;
use crate::units::Clock;
use crate::{output, render};

const EVERY: Duration = Duration::from_secs(1);
/// ECMA-48: cursor home, erase to the end of the display.
const REDRAW: &str = "\x1b[H\x1b[J";

/// On a terminal each status takes the place of the one before.
pub async fn status(context: &Context, selector: &Selector) -> anyhow::Result<()> {
    let redraw = io::stdout().is_terminal();
    let mut ticks = tokio::time::interval(EVERY);
    let mut first = true;
    loop {
        ticks.tick().await;
        let status = context.client.status(selector).await?;
        if context.json {
            output::json_line(&status)?;
            continue;
        }
        let text = render::status::status(&status, &Clock::local(status.node.now_at_ms));
        match (redraw, first) {
            (true, _) => output::raw(&format!("{REDRAW}{}", output::printable(&text)))?,
            (false, true) => output::text(&text)?,
            (false, false) => output::text(&format!("\n{text}"))?,
        }
        first = false;
    }
}

/// The JSON is one line an event, also of the past.
pub async fn events(context: &Context, filter: &EventFilter) -> anyhow::Result<()> {
    let mut events = context.client.events(filter).await?;
    let clock = Clock::now();
    if !context.json {
        output::text(&render::events::head())?;
    }
    while let Some(event) = events.next().await? {
        if context.json {
            output::json_line(&event)?;
        } else {
            output::text(&render::events::event(&event, &clock))?;
        }
    }
    Ok(())
}
