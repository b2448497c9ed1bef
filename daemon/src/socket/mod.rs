//! The node's socket: HTTP and JSON over a Unix socket, for `dormouse` and for scripts.
//!
//! This side only translates. What is asked goes to an [`Operator`], the daemon's main loop; the words are
//! those of the `dormouse-api` crate.

mod answer;
mod events;
mod listen;
mod request;
mod routes;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use dormouse_api::Problem;
use dormouse_api::adopt::{AdoptRequest, AdoptResult};
use dormouse_api::command::{KeepRequest, SleepRequest, WakeRequest, WakeResult};
use dormouse_api::event::Event;
use dormouse_api::preflight::Preflight;
use dormouse_api::profile::{Explain, ProfileSummary, SetRequest, Target};
use dormouse_api::savings::{Savings, SavingsRequest};
use dormouse_api::status::{Mode, Selector, ServerStatus, Status};
use dormouse_api::why::Why;
use tokio::net::UnixListener;
use tokio::sync::mpsc;

pub use listen::{ListenError, Socket, listen};
#[cfg(fuzzing)]
pub use request::fuzz;

/// Who does what the socket is asked for.
///
/// A name that doesn't exist is [`Problem::no_such_server`] or [`Problem::no_such_profile`]; what would hurt
/// a server or its players is [`Problem::refused`] with the reason. A caller that goes away drops the future
/// it waits for: what must be finished once begun belongs into a task of its own.
pub trait Operator: Send + Sync + 'static {
    /// A selector that names a server which doesn't exist is a problem, not an empty answer.
    fn status(&self, selector: Selector) -> impl Future<Output = Answer<Status>> + Send;

    fn why(&self, server: String) -> impl Future<Output = Answer<Why>> + Send;

    /// Wakes, and answers when the server does.
    fn wake(&self, server: String, request: WakeRequest) -> impl Future<Output = Answer<WakeResult>> + Send;

    fn sleep(
        &self,
        server: String,
        request: SleepRequest,
    ) -> impl Future<Output = Answer<ServerStatus>> + Send;

    fn keep(&self, server: String, request: KeepRequest)
    -> impl Future<Output = Answer<ServerStatus>> + Send;

    /// Ends what [`Operator::keep`] began; nothing to end is no problem.
    fn release(&self, server: String) -> impl Future<Output = Answer<ServerStatus>> + Send;

    fn set_mode(&self, server: String, mode: Mode) -> impl Future<Output = Answer<ServerStatus>> + Send;

    /// The past, oldest first, and with `follow` what happens from now on. The socket filters. The stream
    /// ends when the sender is dropped; the receiver is dropped when the caller goes away.
    fn events(&self, follow: bool) -> impl Future<Output = Answer<mpsc::Receiver<Event>>> + Send;

    fn profiles(&self) -> impl Future<Output = Answer<Vec<ProfileSummary>>> + Send;

    fn explain(&self, target: Target) -> impl Future<Output = Answer<Explain>> + Send;

    /// Writes an override; a key or value that is not allowed is [`Problem::bad_field`].
    fn set(&self, target: Target, request: SetRequest) -> impl Future<Output = Answer<Explain>> + Send;

    /// Removes an override; none there is no problem.
    fn unset(&self, target: Target, key: String) -> impl Future<Output = Answer<Explain>> + Send;

    fn preflight(&self) -> impl Future<Output = Answer<Preflight>> + Send;

    /// A server that the period knows nothing of is [`Problem::no_such_server`], though it may exist.
    fn savings(&self, request: SavingsRequest) -> impl Future<Output = Answer<Savings>> + Send;

    fn adopt(&self, request: AdoptRequest) -> impl Future<Output = Answer<AdoptResult>> + Send;
}

/// What an operator gives back.
pub type Answer<T> = Result<T, Problem>;

/// Answers on the socket until it is dropped; it ends by itself only with an error.
pub async fn serve(listener: UnixListener, operator: Arc<impl Operator>) -> io::Result<()> {
    axum::serve(listener, routes::router(operator)).await
}
