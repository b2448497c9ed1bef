//! One session with the control plane: log in, report, follow the stream of commands.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dormouse_api::path;
use dormouse_api::registry::login::{Login, Token};
use dormouse_api::registry::node::{Command, CommandAnswer, ReportAnswer};
use dormouse_api::registry::threshold::NodeProfiles;
use dormouse_api::remote::{Remote, RemoteError};
use dormouse_api::status::Selector;
use hyper::Method;

use super::back_off::BackOff;
use super::orders::{Journal, Taken, carry_out};
use super::{copy, report};
use crate::agent::clock::unix_now_ms;
use crate::config::Control;
use crate::socket::Operator;

const REPORT: Duration = Duration::from_secs(10);
/// The stream has a line every ten seconds: three missed, and it is broken.
const SILENCE: Duration = Duration::from_secs(35);
/// A token that ends within this is renewed.
const MARGIN_MS: u64 = 60_000;
/// A longer line is no command.
const LINE: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error("cannot read the secret in {path}: {source}")]
    Secret { path: PathBuf, source: io::Error },
    #[error("cannot keep what the control plane said: {0}")]
    State(#[from] io::Error),
    #[error("the stream of commands ended: {0}")]
    Stream(String),
}

pub struct Link<O> {
    control: Control,
    state_dir: PathBuf,
    follow: bool,
    operator: Arc<O>,
    reload: Box<dyn Fn() + Send + Sync>,
    /// Without a token.
    remote: Remote,
    token: Option<Token>,
    journal: Arc<Mutex<Journal>>,
    /// Of the thresholds on the disk.
    revision: String,
}

impl<O: Operator> Link<O> {
    pub fn new(
        control: Control,
        state_dir: &Path,
        follow: bool,
        operator: Arc<O>,
        reload: Box<dyn Fn() + Send + Sync>,
    ) -> Result<Self, LinkError> {
        let remote = Remote::new(&control.url, control.authorities.as_deref())?;
        let journal = Arc::new(Mutex::new(Journal::open(state_dir)?));
        let revision = copy::load(state_dir)?.map(|profiles| profiles.revision).unwrap_or_default();
        let state_dir = state_dir.to_owned();
        Ok(Self { control, state_dir, follow, operator, reload, remote, token: None, journal, revision })
    }

    /// Until something breaks.
    pub async fn session(&mut self, back_off: &mut BackOff) -> Result<Infallible, LinkError> {
        let remote = self.logged_in().await?;
        let commands = remote.open(&self.address("commands"), &[]).await?;
        let mut lines = Lines { body: commands.into_body(), read: Vec::new() };
        let mut reports = tokio::time::interval(REPORT);
        reports.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                _ = reports.tick() => {
                    self.report().await?;
                    back_off.reset();
                }
                line = tokio::time::timeout(SILENCE.saturating_sub(heard.elapsed()), lines.next()) => {
                    let silent = |_| LinkError::Stream("silent for too long".to_owned());
                    let line = line.map_err(silent)??;
                    heard = Instant::now();
                    if let Ok(command) = serde_json::from_slice::<Command>(&line) {
                        self.obey(command).await?;
                    }
                }
            }
        }
    }

    fn address(&self, what: &str) -> String {
        format!("/v1/nodes/{}/{what}", path::encode(&self.control.node))
    }

    /// With a token that holds for a while.
    async fn logged_in(&mut self) -> Result<Remote, LinkError> {
        let good = |token: &&Token| token.expires_at_ms > unix_now_ms() + MARGIN_MS;
        if let Some(token) = self.token.as_ref().filter(good) {
            return Ok(self.remote.clone().with_token(&token.token));
        }
        let file = &self.control.secret_file;
        let secret =
            fs::read_to_string(file).map_err(|source| LinkError::Secret { path: file.clone(), source })?;
        let login = Login { key: self.control.key.clone(), secret: secret.trim().to_owned() };
        let token: Token = self.remote.call(Method::POST, "/v1/login", Some(&login)).await?;
        let remote = self.remote.clone().with_token(&token.token);
        self.token = Some(token);
        Ok(remote)
    }

    async fn report(&mut self) -> Result<(), LinkError> {
        let remote = self.logged_in().await?;
        let status = self.operator.status(Selector::default()).await.map_err(RemoteError::from)?;
        let report = report::of(status, self.follow);
        let answer: ReportAnswer = remote.call(Method::POST, &self.address("reports"), Some(&report)).await?;
        if !answer.unknown.is_empty() {
            tracing::debug!(servers = ?answer.unknown, "the registry doesn't know these servers");
        }
        if self.follow && answer.profiles_revision != self.revision {
            let profiles: NodeProfiles = remote.get(&self.address("profiles")).await?;
            copy::save(&self.state_dir, &profiles)?;
            self.revision = profiles.revision;
            (self.reload)();
        }
        Ok(())
    }

    /// Each command in a task of its own: a wake may take its time, the next report not.
    async fn obey(&mut self, command: Command) -> Result<(), LinkError> {
        let received = Instant::now();
        let taken = self.journal.lock().unwrap_or_else(PoisonError::into_inner).take(&command.id)?;
        let remote = self.logged_in().await?;
        let address = self.address(&format!("commands/{}/answer", path::encode(&command.id)));
        let answer = match taken {
            Taken::Wait => return Ok(()),
            Taken::Answer(answer) => Some(answer),
            Taken::Begin => None,
        };
        let (operator, journal) = (Arc::clone(&self.operator), Arc::clone(&self.journal));
        tokio::spawn(async move {
            let answer = if let Some(answer) = answer {
                answer
            } else {
                let answer = carry_out(operator.as_ref(), &command, received).await;
                tracing::info!(
                    server = command.server,
                    order = command.order.name(),
                    outcome = answer.state.name(),
                    "the control plane asked"
                );
                let noted = journal.lock().unwrap_or_else(PoisonError::into_inner).done(&command.id, &answer);
                if let Err(error) = noted {
                    tracing::warn!(%error, "a command's outcome is not on the disk");
                }
                answer
            };
            tell(&remote, &address, &answer).await;
        });
        Ok(())
    }
}

/// An answer that is lost is given again when the command comes again.
async fn tell(remote: &Remote, address: &str, answer: &CommandAnswer) {
    let told: Result<Command, _> = remote.call(Method::POST, address, Some(answer)).await;
    if let Err(error) = told {
        tracing::debug!(%error, "the answer to a command was not taken");
    }
}

/// The lines of an answer that goes on.
struct Lines {
    body: hyper::body::Incoming,
    read: Vec<u8>,
}

impl Lines {
    /// Cancel safe: what was received stays.
    async fn next(&mut self) -> Result<Vec<u8>, LinkError> {
        use http_body_util::BodyExt;

        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                return Ok(self.read.drain(..=end).collect());
            }
            if self.read.len() > LINE {
                return Err(LinkError::Stream("a line without an end".to_owned()));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.read.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
                Some(Err(error)) => return Err(LinkError::Stream(error.to_string())),
                None => return Err(LinkError::Stream("the control plane closed it".to_owned())),
            }
        }
    }
}
