//! One session with the control plane: log in, report, follow the stream of commands and erasures.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dormouse_api::path;
use dormouse_api::registry::erasure::{NodeErased, NodeErasure};
use dormouse_api::registry::login::{Login, Token};
use dormouse_api::registry::node::{Command, CommandAnswer, ForNode, ReportAnswer};
use dormouse_api::registry::threshold::NodeProfiles;
use dormouse_api::remote::{Remote, RemoteError};
use dormouse_api::status::Selector;
use hyper::Method;

use super::back_off::BackOff;
use super::orders::{Journal, Taken, carry_out};
use super::pace::{Pace, Reports};
use super::{Node, copy, report};
use crate::agent::clock::unix_now_ms;
use crate::config::Control;

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

pub struct Link<N> {
    control: Control,
    state_dir: PathBuf,
    follow: bool,
    node: Arc<N>,
    reload: Box<dyn Fn() + Send + Sync>,
    /// Without a token.
    remote: Remote,
    token: Option<Token>,
    journal: Arc<Mutex<Journal>>,
    reports: Arc<Reports>,
    /// Of the thresholds on the disk.
    revision: String,
}

impl<N: Node> Link<N> {
    pub fn new(
        control: Control,
        state_dir: &Path,
        follow: bool,
        node: Arc<N>,
        reload: Box<dyn Fn() + Send + Sync>,
    ) -> Result<Self, LinkError> {
        let remote = Remote::new(&control.url, control.authorities.as_deref())?;
        let journal = Arc::new(Mutex::new(Journal::open(state_dir)?));
        let revision = copy::load(state_dir)?.map(|profiles| profiles.revision).unwrap_or_default();
        let state_dir = state_dir.to_owned();
        Ok(Self {
            control,
            state_dir,
            follow,
            node,
            reload,
            remote,
            token: None,
            journal,
            reports: Arc::default(),
            revision,
        })
    }

    /// Until something breaks.
    pub async fn session(&mut self, back_off: &mut BackOff) -> Result<Infallible, LinkError> {
        let remote = self.logged_in().await?;
        let commands = remote.open(&self.address("commands"), &[]).await?;
        let mut lines = Lines { body: commands.into_body(), read: Vec::new() };
        let (reports, mut changes) = (Arc::clone(&self.reports), self.node.changes());
        let mut pace = Pace::new();
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(pace.due()) => {
                    // Seen before the status is read: what changes after that is told again.
                    changes.borrow_and_update();
                    let number = reports.begin();
                    self.report().await?;
                    reports.end(number);
                    pace.reported();
                    back_off.reset();
                }
                () = reports.wanted() => pace.soon(),
                Ok(()) = changes.changed() => pace.soon(),
                line = tokio::time::timeout(SILENCE.saturating_sub(heard.elapsed()), lines.next()) => {
                    let silent = |_| LinkError::Stream("silent for too long".to_owned());
                    let line = line.map_err(silent)??;
                    heard = Instant::now();
                    match serde_json::from_slice(&line) {
                        Ok(ForNode::Command(command)) => self.obey(command).await?,
                        Ok(ForNode::Erasure(erasure)) => self.erase(erasure).await?,
                        // An empty line, or what a later release says.
                        Err(_) => {}
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
        let status = self.node.status(Selector::default()).await.map_err(RemoteError::from)?;
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

    async fn erase(&mut self, erasure: NodeErasure) -> Result<(), LinkError> {
        let remote = self.logged_in().await?;
        let address = self.address(&format!("erasures/{}/answer", path::encode(&erasure.request)));
        let (node, journal) = (Arc::clone(&self.node), Arc::clone(&self.journal));
        tokio::spawn(async move {
            match erase(node.as_ref(), &journal, &erasure).await {
                Ok(erased) => {
                    let told: Result<(), _> = remote.call(Method::POST, &address, Some(&erased)).await;
                    match told {
                        Ok(()) => {
                            tracing::info!(
                                request = erasure.request,
                                count = erased.count,
                                "erased a person"
                            );
                        }
                        Err(error) => tracing::debug!(%error, "the answer to an erasure was not taken"),
                    }
                }
                Err(problem) => {
                    tracing::warn!(request = erasure.request, %problem, "not erased; asked for again");
                }
            }
        });
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
        let (node, journal) = (Arc::clone(&self.node), Arc::clone(&self.journal));
        let reports = Arc::clone(&self.reports);
        tokio::spawn(async move {
            let answer = if let Some(answer) = answer {
                answer
            } else {
                let answer = carry_out(node.as_ref(), &command, received).await;
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
                // Who gives the next command decides on what this one did.
                reports.make().await;
                answer
            };
            tell(&remote, &address, &answer).await;
        });
        Ok(())
    }
}

/// Done at once and again whenever it comes again; unanswered it does.
async fn erase(
    node: &impl Node,
    journal: &Mutex<Journal>,
    erasure: &NodeErasure,
) -> Result<NodeErased, dormouse_api::Problem> {
    let known = node.erase(erasure.subject.clone(), erasure.tenant.clone()).await?;
    let answers = journal.lock().unwrap_or_else(PoisonError::into_inner).forget(&erasure.subject);
    let answers = answers.map_err(|error| dormouse_api::Problem::internal(error.to_string()))?;
    Ok(NodeErased { count: known + answers })
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
