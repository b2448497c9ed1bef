//! What each verb does.

pub mod profile;
mod savings;
mod servers;
mod watch;

use std::env;
use std::path::PathBuf;

use clap::CommandFactory;
use dormouse_api::adopt::AdoptRequest;
use dormouse_api::client::{Client, ClientError};
use dormouse_api::command::{KeepRequest, ModeRequest, SleepRequest, WakeRequest};
use dormouse_api::event::EventFilter;
use dormouse_api::preflight::CheckResult;
use dormouse_api::status::Mode;

use crate::args::{Cli, Enabled, Format, Verb};
use crate::exit::{Silent, Usage};
use crate::units::Clock;
use crate::{companion, control, output, render};

/// Whom to ask, and how to print the answer.
struct Context {
    client: Client,
    json: bool,
}

impl Context {
    /// One answer: as text, or as the JSON that it came in.
    fn print<T: serde::Serialize>(&self, answer: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        if self.json { output::json(answer) } else { Ok(output::text(&text(answer))?) }
    }
}

pub async fn run(cli: Cli) -> anyhow::Result<()> {
    let savings = matches!(cli.verb, Verb::Savings(_));
    if matches!(cli.output, Format::Csv | Format::Html) && !savings {
        return Err(
            Usage("only `dormouse savings` prints csv and html; say -o table or -o json".to_owned()).into()
        );
    }
    if let Verb::Login(login) = &cli.verb {
        return control::login(login).await;
    }
    if let Some(which) = &cli.control
        && control::speaks(&cli.verb)
    {
        return control::run(which, cli.output == Format::Json, cli.verb).await;
    }
    let context = Context { client: Client::new(socket(cli.socket)), json: cli.output == Format::Json };
    let client = &context.client;
    match cli.verb {
        Verb::Preflight => preflight(&context).await,
        Verb::Adopt { select, profile } => {
            let adopted = client.adopt(&AdoptRequest { select, profile }).await?;
            context.print(&adopted, render::preflight::adopted)
        }
        Verb::Enable { servers, mode } => {
            let mode = match mode {
                Enabled::Doze => Mode::Doze,
                Enabled::Full => Mode::Full,
            };
            servers::each(&context, servers, async |name| client.set_mode(name, ModeRequest { mode }).await)
                .await
        }
        Verb::Disable { servers } => {
            let request = ModeRequest { mode: Mode::Observe };
            servers::each(&context, servers, async |name| client.set_mode(name, request).await).await
        }
        Verb::Status { servers, watch: false } => {
            let status = client.status(&servers.into()).await?;
            context
                .print(&status, |status| render::status::status(status, &Clock::local(status.node.now_at_ms)))
        }
        Verb::Status { servers, watch: true } => watch::status(&context, &servers.into()).await,
        Verb::Why { servers } => servers::each(&context, servers, async |name| client.why(name).await).await,
        Verb::Wake { servers, keep } => {
            let keep = keep.map(|length| keep_request(length, "dormouse wake --keep".to_owned()));
            let request = WakeRequest { keep };
            servers::each(&context, servers, async |name| client.wake(name, &request).await).await
        }
        Verb::Sleep { servers, deep } => {
            servers::each(&context, servers, async |name| client.sleep(name, SleepRequest { deep }).await)
                .await
        }
        Verb::Keep { servers, length, reason } => {
            let request = keep_request(length, reason);
            servers::each(&context, servers, async |name| client.keep(name, &request).await).await
        }
        Verb::Release { servers } => {
            servers::each(&context, servers, async |name| client.release(name).await).await
        }
        Verb::Profile(verb) => profile::run(&context, verb).await,
        Verb::Events { servers, watch, kinds } => {
            let filter =
                EventFilter { servers: servers.servers, profile: servers.profile, kinds, follow: watch };
            watch::events(&context, &filter).await
        }
        Verb::Savings(args) => savings::run(&context, args, cli.output).await,
        Verb::Login(_)
        | Verb::Servers(_)
        | Verb::Tenants(_)
        | Verb::Nodes { .. }
        | Verb::Keys(_)
        | Verb::Bus(_)
        | Verb::Erasure(_)
        | Verb::Index(_) => {
            let why = "this is a control plane's: name one with --control, or with DORMOUSE_CONTROL";
            Err(Usage(why.to_owned()).into())
        }
        Verb::Off => Err(companion::become_guard("off")),
        Verb::On => Err(companion::become_guard("on")),
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "dormouse", &mut script);
            Ok(output::raw(&String::from_utf8_lossy(&script))?)
        }
    }
}

fn socket(argument: Option<PathBuf>) -> PathBuf {
    let variable = || env::var_os("DORMOUSE_SOCKET").filter(|path| !path.is_empty()).map(PathBuf::from);
    argument.or_else(variable).unwrap_or_else(|| PathBuf::from(dormouse_api::SOCKET))
}

pub fn keep_request(length: std::time::Duration, reason: String) -> KeepRequest {
    // Behind sudo everybody is root: the one who asked is the owner.
    let owner =
        ["SUDO_USER", "USER"].into_iter().find_map(|name| env::var(name).ok().filter(|v| !v.is_empty()));
    let for_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    KeepRequest { for_ms, reason, owner: owner.unwrap_or_else(|| "root".to_owned()) }
}

/// Asks the daemon, or where it doesn't run, its program.
async fn preflight(context: &Context) -> anyhow::Result<()> {
    let preflight = match context.client.preflight().await {
        Err(error @ ClientError::Unreachable { .. }) => match companion::preflight()? {
            Some(preflight) => preflight,
            None => return Err(error.into()),
        },
        answer => answer?,
    };
    context.print(&preflight, render::preflight::preflight)?;
    if preflight.checks.iter().any(|check| check.result == CheckResult::Fail) {
        return Err(Silent(1).into());
    }
    Ok(())
}
