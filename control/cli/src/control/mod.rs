//! The same verbs, asked of a control plane.

mod contexts;
mod people;
mod things;

use std::time::{Duration, Instant};

use anyhow::bail;
use dormouse_api::Problem;
use dormouse_api::command::SleepRequest;
use dormouse_api::path;
use dormouse_api::profile::{Explain, Target};
use dormouse_api::registry::Page;
use dormouse_api::registry::node::{Command, CommandState};
use dormouse_api::registry::threshold::{Change, Profile, SetThreshold};
use dormouse_api::remote::Remote;
use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::args::{Chosen, Limits, NodesVerb, ProfileVerb, Verb};
use crate::exit::{self, Silent, Usage};
use crate::render::table::table;
use crate::units::Clock;
use crate::verbs::profile as words;
use crate::{output, render, verbs};

pub use contexts::login;

/// A command lives for a minute; its answer may need a moment more.
const COMMAND: Duration = Duration::from_secs(70);

/// Whether a control plane has an answer; the others stay the node's, also with DORMOUSE_CONTROL set.
pub fn speaks(verb: &Verb) -> bool {
    matches!(
        verb,
        Verb::Wake { .. }
            | Verb::Sleep { .. }
            | Verb::Keep { .. }
            | Verb::Release { .. }
            | Verb::Profile(_)
            | Verb::Servers(_)
            | Verb::Tenants(_)
            | Verb::Nodes { .. }
            | Verb::Keys(_)
            | Verb::Bus(_)
            | Verb::Erasure(_)
            | Verb::Index(_)
    )
}

/// Whom to ask, and how to print.
struct Asks {
    remote: Remote,
    json: bool,
}

impl Asks {
    fn print<T: Serialize>(&self, answer: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        if self.json { output::json(answer) } else { Ok(output::text(&text(answer))?) }
    }

    /// Every page of a list.
    async fn all<T: DeserializeOwned>(&self, list: &str) -> anyhow::Result<Vec<T>> {
        let sign = if list.contains('?') { '&' } else { '?' };
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let page: Page<T> = self.remote.get(&format!("{list}{sign}limit=500{cursor}")).await?;
            items.extend(page.items);
            match page.next {
                Some(next) => cursor = format!("&cursor={}", path::encode(&next)),
                None => return Ok(items),
            }
        }
    }
}

pub async fn run(which: &str, json: bool, verb: Verb) -> anyhow::Result<()> {
    let asks = Asks { remote: contexts::remote(which).await?, json };
    match verb {
        Verb::Wake { servers, keep } => {
            if let Some(length) = keep {
                let request = verbs::keep_request(length, "dormouse wake --keep".to_owned());
                each(&asks, &servers, "keep", &request).await?;
            }
            each(&asks, &servers, "wake", &serde_json::json!({})).await
        }
        Verb::Sleep { servers, deep } => each(&asks, &servers, "sleep", &SleepRequest { deep }).await,
        Verb::Keep { servers, length, reason } => {
            each(&asks, &servers, "keep", &verbs::keep_request(length, reason)).await
        }
        Verb::Release { servers } => each(&asks, &servers, "release", &serde_json::json!({})).await,
        Verb::Profile(verb) => profile(&asks, verb).await,
        Verb::Servers(verb) => things::servers(&asks, verb).await,
        Verb::Tenants(verb) => people::tenants(&asks, verb).await,
        Verb::Nodes { verb } => things::nodes(&asks, verb.unwrap_or(NodesVerb::List)).await,
        Verb::Keys(verb) => people::keys(&asks, verb).await,
        Verb::Bus(verb) => things::bus(&asks, verb).await,
        Verb::Erasure(verb) => things::erasure(&asks, verb).await,
        Verb::Index(verb) => things::index(&asks, verb).await,
        _ => Err(Usage("this is a node's: leave out --control".to_owned()).into()),
    }
}

/// One command after the other; each is waited for. The worst of all ends this one.
async fn each(asks: &Asks, servers: &Chosen, what: &str, request: &impl Serialize) -> anyhow::Result<()> {
    let mut troubles = Vec::new();
    for name in chosen(asks, servers).await? {
        match command(asks, &name, what, request).await {
            Ok(done) => asks.print(&done, |done| format!("{}  {what} done\n", done.server))?,
            Err(error) => {
                exit::complain(Some(&name), &error);
                troubles.push(exit::status(&error));
            }
        }
    }
    troubles.into_iter().min().map_or(Ok(()), |worst| Err(Silent(worst).into()))
}

async fn chosen(asks: &Asks, chosen: &Chosen) -> anyhow::Result<Vec<String>> {
    if !chosen.all && chosen.profile.is_none() {
        return Ok(chosen.servers.clone());
    }
    let profile = chosen.profile.as_deref().map(|profile| format!("?profile={}", path::encode(profile)));
    let list = format!("/v1/servers{}", profile.unwrap_or_default());
    let servers: Vec<dormouse_api::registry::server::Server> = asks.all(&list).await?;
    let wanted = |name: &String| chosen.servers.is_empty() || chosen.servers.contains(name);
    let names: Vec<_> = servers.into_iter().map(|server| server.name).filter(wanted).collect();
    if names.is_empty() {
        bail!("no such server");
    }
    Ok(names)
}

/// Asks, and waits for the node's answer.
async fn command(asks: &Asks, server: &str, what: &str, request: &impl Serialize) -> anyhow::Result<Command> {
    let mut command: Command =
        asks.remote.call(Method::POST, &path::server(server, what), Some(request)).await?;
    let end = Instant::now() + COMMAND;
    while command.state == CommandState::Waiting && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(200)).await;
        command = asks.remote.get(&format!("/v1/commands/{}", path::encode(&command.id))).await?;
    }
    let detail = || command.detail.clone().unwrap_or_default();
    match command.state {
        CommandState::Done => Ok(command),
        CommandState::Refused => {
            Err(dormouse_api::remote::RemoteError::from(Problem::refused(detail())).into())
        }
        CommandState::Expired | CommandState::Waiting => {
            bail!("its node did not answer in a minute: is it there? `dormouse nodes` tells {}", detail())
        }
    }
}

fn address(target: &Target) -> String {
    match target {
        Target::Server(name) => path::server(name, "limits"),
        Target::Profile(name) => format!("/v1/profiles/{}", path::encode(name)),
    }
}

async fn profile(asks: &Asks, verb: ProfileVerb) -> anyhow::Result<()> {
    let explained = |explain: &Explain| render::profile::explain(explain, &Clock::now());
    match verb {
        ProfileVerb::List => {
            let profiles: Vec<Profile> = asks.all("/v1/profiles").await?;
            let row = |one: &Profile| {
                let limits: Vec<_> = one.limits.iter().map(|(key, value)| format!("{key}={value}")).collect();
                [one.name.clone(), one.servers.to_string(), limits.join(" ")]
            };
            asks.print(&profiles, |profiles| {
                table(["PROFILE", "SERVERS", "LIMITS"], &profiles.iter().map(row).collect::<Vec<_>>())
            })
        }
        ProfileVerb::Get(limits) => {
            let (target, key) = words::optional_key(limits, "get")?;
            let explain: Explain = asks.remote.get(&address(&target)).await?;
            match key {
                None => asks.print(&explain.settings, |settings| render::profile::values(settings)),
                Some(key) => {
                    let setting = words::find(explain, &key)?;
                    asks.print(&setting, |setting| format!("{}\n", setting.value))
                }
            }
        }
        ProfileVerb::Explain(limits) => {
            let (target, key) = words::optional_key(limits, "explain")?;
            let mut explain: Explain = asks.remote.get(&address(&target)).await?;
            if let Some(key) = key {
                let (name, profile) = (explain.name.clone(), explain.profile.clone());
                explain = Explain { name, profile, settings: vec![words::find(explain, &key)?] };
            }
            asks.print(&explain, explained)
        }
        ProfileVerb::Set { limits, length, reason } => {
            if length.is_some() {
                return Err(words::usage("set", "the registry's layer has no end: leave out --for").into());
            }
            let (target, rest) = words::target(limits, "set")?;
            let [key, value]: [String; 2] =
                rest.try_into().map_err(|_| words::usage("set", "a key and a value are needed"))?;
            let request = SetThreshold { key: key.clone(), value, reason };
            let mut explain: Explain =
                asks.remote.call(Method::PATCH, &address(&target), Some(&request)).await?;
            explain.settings.retain(|setting| setting.key == key);
            asks.print(&explain, explained)
        }
        ProfileVerb::Unset(limits) => {
            let (target, rest) = words::target(limits, "unset")?;
            let [key]: [String; 1] =
                rest.try_into().map_err(|_| words::usage("unset", "one key is needed"))?;
            let path = format!("{}/{}", address(&target), path::encode(&key));
            let mut explain: Explain = asks.remote.call(Method::DELETE, &path, None::<&()>).await?;
            explain.settings.retain(|setting| setting.key == key);
            asks.print(&explain, explained)
        }
        ProfileVerb::History(limits) => history(asks, limits).await,
    }
}

async fn history(asks: &Asks, limits: Limits) -> anyhow::Result<()> {
    let (target, _) = words::optional_key(limits, "history")?;
    let changes: Vec<Change> = asks.all(&format!("{}/history", address(&target))).await?;
    let clock = Clock::now();
    let none = || "-".to_owned();
    let row = |one: &Change| {
        [
            clock.date_time_ms(one.at_ms),
            one.by.clone(),
            one.key.clone(),
            one.old.clone().unwrap_or_else(none),
            one.new.clone().unwrap_or_else(none),
            one.reason.clone().unwrap_or_default(),
        ]
    };
    asks.print(&changes, |changes| {
        table(["AT", "BY", "KEY", "OLD", "NEW", "REASON"], &changes.iter().map(row).collect::<Vec<_>>())
    })
}
