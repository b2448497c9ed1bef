//! The same verb on one server after the other.

use anyhow::bail;
use dormouse_api::client::ClientError;
use dormouse_api::command::WakeResult;
use dormouse_api::status::{Selector, ServerStatus};
use dormouse_api::why::Why;

use super::Context;
use crate::args::Chosen;
use crate::exit::{self, Silent};
use crate::render;
use crate::units::Clock;

/// What a verb on a server answers.
pub trait Told: serde::Serialize {
    fn text(&self) -> String;
}

impl Told for ServerStatus {
    fn text(&self) -> String {
        render::server::changed(self, &Clock::now())
    }
}

impl Told for WakeResult {
    fn text(&self) -> String {
        render::server::woken(self)
    }
}

impl Told for Why {
    fn text(&self) -> String {
        render::why::why(self, &Clock::local(self.now_at_ms))
    }
}

/// One server's trouble doesn't stop the others; the worst of all ends the command: unreachable at once,
/// then failed, then refused.
pub async fn each<T: Told>(
    context: &Context,
    servers: Chosen,
    ask: impl AsyncFn(&str) -> Result<T, ClientError>,
) -> anyhow::Result<()> {
    let mut troubles = Vec::new();
    for name in chosen(context, servers).await? {
        match ask(&name).await {
            Ok(answer) => context.print(&answer, T::text)?,
            Err(error @ ClientError::Unreachable { .. }) => return Err(error.into()),
            Err(error) => {
                let error = error.into();
                exit::complain(Some(&name), &error);
                troubles.push(exit::status(&error));
            }
        }
    }
    // 1 failed and 2 usage stand above 3 refused.
    troubles.into_iter().min().map_or(Ok(()), |worst| Err(Silent(worst).into()))
}

/// The names, in order. Names alone need no question.
async fn chosen(context: &Context, chosen: Chosen) -> anyhow::Result<Vec<String>> {
    if chosen.profile.is_none() && !chosen.all {
        return Ok(chosen.servers);
    }
    let selector = Selector { servers: chosen.servers, profile: chosen.profile };
    let status = context.client.status(&selector).await?;
    if status.servers.is_empty() {
        match selector.profile {
            Some(profile) => bail!("no such server has the profile {profile}"),
            None => bail!("this node has no servers; `dormouse adopt` adds one"),
        }
    }
    Ok(status.servers.into_iter().map(|server| server.name).collect())
}
