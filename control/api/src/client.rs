//! Asks the daemon: one HTTP/1.1 connection over its Unix socket a request.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::adopt::{AdoptRequest, AdoptResult};
use crate::command::{KeepRequest, ModeRequest, SleepRequest, WakeRequest, WakeResult};
use crate::event::{Event, EventFilter};
use crate::path;
use crate::preflight::Preflight;
use crate::problem::Problem;
use crate::profile::{Explain, ProfileSummary, SetRequest, Target};
use crate::savings::{Savings, SavingsRequest};
use crate::status::{Selector, ServerStatus, Status};
use crate::why::Why;

/// What the daemon answers from memory.
const QUICK: Duration = Duration::from_secs(10);
/// What waits for a server or a disk: a deep wake, a save before a doze, a disk measured.
const SLOW: Duration = Duration::from_mins(3);

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot reach the daemon at {socket}: {why}{}\n{}", in_brackets(.said.as_ref()), .why.remedy())]
    Unreachable {
        socket: PathBuf,
        why: Unreachable,
        /// What the system said, where it says more than `why`.
        said: Option<io::Error>,
    },
    /// The daemon answered, and the answer is no.
    #[error(transparent)]
    Problem(#[from] Problem),
    /// It is an HTTP server, but not one that speaks as this client does.
    #[error("{socket} answered {method} {path} with something else than dormoused would: {what}")]
    Strange { socket: PathBuf, method: Method, path: String, what: String },
}

/// Why nobody answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    #[error("there is no such socket")]
    NoSocket,
    #[error("the daemon is not running")]
    NotRunning,
    #[error("no permission")]
    NoPermission,
    #[error("no answer in {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the connection broke")]
    Broken,
}

impl Unreachable {
    /// What to do about it.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::NoSocket => {
                "start it (`systemctl start dormoused`), or name its socket with --socket or DORMOUSE_SOCKET"
            }
            Self::NotRunning => "start it: `systemctl start dormoused`; sleepers are in the guard's care",
            Self::NoPermission => "the socket belongs to root: use sudo",
            Self::Silent(_) | Self::Broken => "look at its log: `journalctl -u dormoused`",
        }
    }

    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NoSocket,
            io::ErrorKind::ConnectionRefused => Self::NotRunning,
            io::ErrorKind::PermissionDenied => Self::NoPermission,
            _ => Self::Broken,
        }
    }
}

fn in_brackets(error: Option<&io::Error>) -> String {
    error.map(|error| format!(" ({error})")).unwrap_or_default()
}

type Result<T> = std::result::Result<T, ClientError>;

/// A way to one daemon.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub async fn status(&self, selector: &Selector) -> Result<Status> {
        self.get(&format!("/v1/status{}", selector.query()), QUICK).await
    }

    pub async fn why(&self, server: &str) -> Result<Why> {
        self.get(&path::server(server, "why"), QUICK).await
    }

    pub async fn wake(&self, server: &str, request: &WakeRequest) -> Result<WakeResult> {
        self.call(Method::POST, &path::server(server, "wake"), Some(request), SLOW).await
    }

    pub async fn sleep(&self, server: &str, request: SleepRequest) -> Result<ServerStatus> {
        self.call(Method::POST, &path::server(server, "sleep"), Some(&request), SLOW).await
    }

    pub async fn keep(&self, server: &str, request: &KeepRequest) -> Result<ServerStatus> {
        self.call(Method::POST, &path::server(server, "keep"), Some(request), QUICK).await
    }

    pub async fn release(&self, server: &str) -> Result<ServerStatus> {
        self.call(Method::POST, &path::server(server, "release"), None::<&()>, QUICK).await
    }

    pub async fn set_mode(&self, server: &str, request: ModeRequest) -> Result<ServerStatus> {
        self.call(Method::PUT, &path::server(server, "mode"), Some(&request), SLOW).await
    }

    pub async fn profiles(&self) -> Result<Vec<ProfileSummary>> {
        self.get("/v1/profiles", QUICK).await
    }

    pub async fn explain(&self, target: &Target) -> Result<Explain> {
        self.get(&limits(target), QUICK).await
    }

    pub async fn set(&self, target: &Target, request: &SetRequest) -> Result<Explain> {
        self.call(Method::PATCH, &limits(target), Some(request), QUICK).await
    }

    pub async fn unset(&self, target: &Target, key: &str) -> Result<Explain> {
        let path = format!("{}/{}", limits(target), path::encode(key));
        self.call(Method::DELETE, &path, None::<&()>, QUICK).await
    }

    pub async fn preflight(&self) -> Result<Preflight> {
        self.get("/v1/preflight", SLOW).await
    }

    pub async fn savings(&self, request: &SavingsRequest) -> Result<Savings> {
        self.get(&format!("/v1/savings{}", request.query()), SLOW).await
    }

    pub async fn adopt(&self, request: &AdoptRequest) -> Result<AdoptResult> {
        self.call(Method::POST, "/v1/adopt", Some(request), SLOW).await
    }

    /// The past, and with [`EventFilter::follow`] what happens from now on.
    pub async fn events(&self, filter: &EventFilter) -> Result<Events> {
        let path = format!("/v1/events{}", filter.query());
        let response = self.within(QUICK, self.send(&Method::GET, &path, Bytes::new())).await?;
        if response.status() != StatusCode::OK {
            let status = response.status();
            let body = self.within(QUICK, self.body(response)).await?;
            return Err(self.refusal(&Method::GET, &path, status, &body));
        }
        Ok(Events { client: self.clone(), path, body: response.into_body(), read: BytesMut::new() })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, wait: Duration) -> Result<T> {
        self.call(Method::GET, path, None::<&()>, wait).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        request: Option<&impl Serialize>,
        wait: Duration,
    ) -> Result<T> {
        let body = match request {
            Some(request) => serde_json::to_vec(request)
                .map_err(|error| self.strange(&method, path, format!("the request: {error}")))?,
            None => Vec::new(),
        };
        let (status, body) = self
            .within(wait, async {
                let response = self.send(&method, path, body.into()).await?;
                Ok((response.status(), self.body(response).await?))
            })
            .await?;
        if !status.is_success() {
            return Err(self.refusal(&method, path, status, &body));
        }
        serde_json::from_slice(&body).map_err(|error| self.strange(&method, path, error.to_string()))
    }

    async fn send(&self, method: &Method, path: &str, body: Bytes) -> Result<Response<Incoming>> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| {
            let why = Unreachable::of(&error);
            let said = (why == Unreachable::Broken).then_some(error);
            ClientError::Unreachable { socket: self.socket.clone(), why, said }
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(error))?;
        // What goes wrong on the connection shows in the request or in the body.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, "dormouse")
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.strange(method, path, error.to_string()))?;
        sender.send_request(request).await.map_err(|error| self.broken(error))
    }

    async fn body(&self, response: Response<Incoming>) -> Result<Bytes> {
        let body = response.into_body().collect().await.map_err(|error| self.broken(error))?;
        Ok(body.to_bytes())
    }

    async fn within<T>(&self, wait: Duration, request: impl Future<Output = Result<T>>) -> Result<T> {
        match tokio::time::timeout(wait, request).await {
            Ok(answer) => answer,
            Err(_) => Err(ClientError::Unreachable {
                socket: self.socket.clone(),
                why: Unreachable::Silent(wait),
                said: None,
            }),
        }
    }

    fn refusal(&self, method: &Method, path: &str, status: StatusCode, body: &[u8]) -> ClientError {
        match serde_json::from_slice(body) {
            Ok(problem) => ClientError::Problem(problem),
            Err(_) => self.strange(method, path, format!("status {status} without a problem")),
        }
    }

    fn broken(&self, error: hyper::Error) -> ClientError {
        ClientError::Unreachable {
            socket: self.socket.clone(),
            why: Unreachable::Broken,
            said: Some(io::Error::other(error)),
        }
    }

    fn strange(&self, method: &Method, path: &str, what: String) -> ClientError {
        ClientError::Strange {
            socket: self.socket.clone(),
            method: method.clone(),
            path: path.to_owned(),
            what,
        }
    }
}

fn limits(target: &Target) -> String {
    match target {
        Target::Server(name) => path::server(name, "limits"),
        Target::Profile(name) => format!("/v1/profiles/{}", path::encode(name)),
    }
}

/// A stream of events.
#[derive(Debug)]
pub struct Events {
    client: Client,
    path: String,
    body: Incoming,
    /// Received, not yet a whole line.
    read: BytesMut,
}

impl Events {
    /// The next event; `None` when the daemon has ended the stream.
    ///
    /// Cancel safe: what was received stays.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(end + 1);
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(|error| self.client.strange(&Method::GET, &self.path, error.to_string()));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(self.client.broken(error)),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.read.extend_from_slice(data);
                    }
                }
            }
        }
    }
}
