//! `dormouse profile …`.

use anyhow::bail;
use dormouse_api::profile::{Explain, SetRequest, Setting, Target};

use super::Context;
use crate::args::{Limits, ProfileVerb};
use crate::exit::Usage;
use crate::render;
use crate::units::Clock;

pub(super) async fn run(context: &Context, verb: ProfileVerb) -> anyhow::Result<()> {
    let client = &context.client;
    match verb {
        ProfileVerb::List => {
            let profiles = client.profiles().await?;
            context.print(&profiles, |profiles| render::profile::list(profiles))
        }
        ProfileVerb::Get(limits) => {
            let (target, key) = optional_key(limits, "get")?;
            let explained = client.explain(&target).await?;
            match key {
                None => context.print(&explained.settings, |settings| render::profile::values(settings)),
                Some(key) => {
                    let setting = find(explained, &key)?;
                    context.print(&setting, |setting| format!("{}\n", setting.value))
                }
            }
        }
        ProfileVerb::Explain(limits) => {
            let (target, key) = optional_key(limits, "explain")?;
            let mut explained = client.explain(&target).await?;
            if let Some(key) = key {
                let (name, profile) = (explained.name.clone(), explained.profile.clone());
                explained = Explain { name, profile, settings: vec![find(explained, &key)?] };
            }
            print_explained(context, &explained)
        }
        ProfileVerb::Set { limits, length, reason: _ } => {
            let length =
                length.ok_or_else(|| usage("set", "an override on a node has an end: --for TIME"))?;
            let (target, words) = target(limits, "set")?;
            let [key, value] = words.try_into().map_err(|_| usage("set", "a key and a value are needed"))?;
            let for_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
            let explained = client.set(&target, &SetRequest { key: key.clone(), value, for_ms }).await?;
            print_key(context, explained, &key)
        }
        ProfileVerb::History(_) => Err(usage("history", "the registry keeps the history: --control").into()),
        ProfileVerb::Unset(limits) => {
            let (target, words) = target(limits, "unset")?;
            let [key] = words.try_into().map_err(|_| usage("unset", "one key is needed"))?;
            let explained = client.unset(&target, &key).await?;
            print_key(context, explained, &key)
        }
    }
}

/// What holds after a change, for the key that was changed.
fn print_key(context: &Context, mut explained: Explain, key: &str) -> anyhow::Result<()> {
    explained.settings.retain(|setting| setting.key == key);
    print_explained(context, &explained)
}

fn print_explained(context: &Context, explained: &Explain) -> anyhow::Result<()> {
    context.print(explained, |explained| render::profile::explain(explained, &Clock::now()))
}

pub fn find(explained: Explain, key: &str) -> anyhow::Result<Setting> {
    let known: Vec<_> = explained.settings.iter().map(|setting| setting.key.clone()).collect();
    match explained.settings.into_iter().find(|setting| setting.key == key) {
        Some(setting) => Ok(setting),
        None => bail!("{} has no {key}; there are: {}", explained.name, known.join(", ")),
    }
}

pub fn optional_key(limits: Limits, verb: &str) -> anyhow::Result<(Target, Option<String>)> {
    let (target, mut words) = target(limits, verb)?;
    let key = words.pop();
    if words.is_empty() { Ok((target, key)) } else { Err(usage(verb, "at most one key").into()) }
}

/// The first word is the server, unless a profile is named.
pub fn target(limits: Limits, verb: &str) -> Result<(Target, Vec<String>), Usage> {
    let mut words = limits.words;
    if let Some(profile) = limits.profile {
        return Ok((Target::Profile(profile), words));
    }
    if words.is_empty() {
        return Err(usage(verb, "name a server, or a profile with -p"));
    }
    let server = words.remove(0);
    Ok((Target::Server(server), words))
}

pub fn usage(verb: &str, what: &str) -> Usage {
    Usage(format!("{what}; see `dormouse profile {verb} --help`"))
}
