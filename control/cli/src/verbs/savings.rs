//! `dormouse savings`.

use dormouse_api::savings::SavingsRequest;
use jiff::tz::TimeZone;

use super::Context;
use crate::args::{Format, SavingsArgs};
use crate::units::Clock;
use crate::worth::{Report, Terms, estimated};
use crate::{output, render};

pub async fn run(context: &Context, args: SavingsArgs, format: Format) -> anyhow::Result<()> {
    let now_ms = Clock::now().now_ms;
    let request = SavingsRequest {
        since_at_ms: args.since.map(|when| when.at_ms(now_ms)),
        until_at_ms: args.until.map(|when| when.at_ms(now_ms)),
        servers: args.servers.into(),
    };
    let answer = context.client.savings(&request).await?;
    let terms = Terms { gib_month: args.price, tib_written: args.wear_price, margin: args.margin };
    let report = Report::new(if args.estimate { estimated(answer) } else { answer }, terms);
    let zone = TimeZone::system();
    match format {
        Format::Table => Ok(output::text(&render::savings::text(&report, terms, &zone))?),
        Format::Json => output::json(&report),
        Format::Csv => Ok(output::raw(&render::savings::csv(&report))?),
        Format::Html => Ok(output::raw(&render::savings::html(&report, terms, &zone))?),
    }
}
