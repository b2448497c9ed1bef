//! The operator's side: what the socket asks becomes a message to the agent, with a place for the answer.

use std::{sync::Arc, time::SystemTime};

use dormouse_api::{
    Problem,
    adopt::{AdoptRequest, AdoptResult},
    command::{KeepRequest, SleepRequest, WakeRequest, WakeResult},
    event::Event,
    preflight::{Check, Preflight},
    profile::{Explain, ProfileSummary, SetRequest, Target},
    savings::{Savings, SavingsRequest},
    status::{Mode, Selector, ServerStatus, Status},
    why::Why,
};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Handle, Message, clock::unix_now_ms, status::node_name};
use crate::{
    adopt, config, control, preflight,
    socket::{Answer, Operator},
};

/// A place for an answer.
pub type To<T> = oneshot::Sender<Answer<T>>;

/// What an operator asks the agent.
pub enum Ask {
    Status(Selector, To<Status>),
    Why(String, To<Why>),
    /// What preflight says of each server.
    DeepChecks(To<Vec<Check>>),
    Wake(String, WakeRequest, To<WakeResult>),
    Sleep(String, SleepRequest, To<ServerStatus>),
    Keep(String, KeepRequest, To<ServerStatus>),
    Release(String, To<ServerStatus>),
    SetMode(String, Mode, To<ServerStatus>),
    Profiles(To<Vec<ProfileSummary>>),
    Explain(Target, To<Explain>),
    Set(Target, SetRequest, To<Explain>),
    Unset(Target, String, To<Explain>),
    /// A person's id, and whose servers it is about.
    Erase(String, Option<String>, To<u64>),
}

impl Handle {
    async fn ask<T>(&self, ask: impl FnOnce(To<T>) -> Ask) -> Answer<T> {
        let (to, answer) = oneshot::channel();
        let gone = || Problem::internal("the daemon is stopping");
        self.outbox.send(Message::Ask(ask(to))).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Operator for Handle {
    async fn status(&self, selector: Selector) -> Answer<Status> {
        self.ask(|to| Ask::Status(selector, to)).await
    }

    async fn why(&self, server: String) -> Answer<Why> {
        self.ask(|to| Ask::Why(server, to)).await
    }

    async fn wake(&self, server: String, request: WakeRequest) -> Answer<WakeResult> {
        self.ask(|to| Ask::Wake(server, request, to)).await
    }

    async fn sleep(&self, server: String, request: SleepRequest) -> Answer<ServerStatus> {
        self.ask(|to| Ask::Sleep(server, request, to)).await
    }

    async fn keep(&self, server: String, request: KeepRequest) -> Answer<ServerStatus> {
        self.ask(|to| Ask::Keep(server, request, to)).await
    }

    async fn release(&self, server: String) -> Answer<ServerStatus> {
        self.ask(|to| Ask::Release(server, to)).await
    }

    async fn set_mode(&self, server: String, mode: Mode) -> Answer<ServerStatus> {
        self.ask(|to| Ask::SetMode(server, mode, to)).await
    }

    async fn events(&self, follow: bool) -> Answer<mpsc::Receiver<Event>> {
        Ok(self.journal.read(follow))
    }

    async fn profiles(&self) -> Answer<Vec<ProfileSummary>> {
        self.ask(Ask::Profiles).await
    }

    async fn explain(&self, target: Target) -> Answer<Explain> {
        self.ask(|to| Ask::Explain(target, to)).await
    }

    async fn set(&self, target: Target, request: SetRequest) -> Answer<Explain> {
        self.ask(|to| Ask::Set(target, request, to)).await
    }

    async fn unset(&self, target: Target, key: String) -> Answer<Explain> {
        self.ask(|to| Ask::Unset(target, key, to)).await
    }

    async fn preflight(&self) -> Answer<Preflight> {
        let node = self.config.clone();
        let looked = tokio::task::spawn_blocking(move || preflight::preflight(&node));
        let mut found = looked.await.map_err(|error| Problem::internal(error.to_string()))?;
        found.checks.extend(self.ask(Ask::DeepChecks).await?);
        Ok(found)
    }

    async fn savings(&self, request: SavingsRequest) -> Answer<Savings> {
        let books = Arc::clone(&self.books);
        let read = tokio::task::spawn_blocking(move || books.read(node_name(), &request, unix_now_ms()));
        read.await.map_err(|error| Problem::internal(error.to_string()))?
    }

    async fn adopt(&self, request: AdoptRequest) -> Answer<AdoptResult> {
        let (node, place) = (self.config.clone(), Arc::clone(&self.place));
        let adopted = tokio::task::spawn_blocking(move || {
            let loaded = config::load(&node, SystemTime::now());
            adopt::adopt(&node, &place.root, &place.helper, &loaded, &request).map_err(Problem::from)
        });
        let result = adopted.await.map_err(|error| Problem::internal(error.to_string()))?;
        self.reload();
        result
    }
}

impl control::Node for Handle {
    async fn erase(&self, subject: String, tenant: Option<String>) -> Answer<u64> {
        self.ask(|to| Ask::Erase(subject, tenant, to)).await
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}
