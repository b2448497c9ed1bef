//! Asks a control plane over TCP, with TLS where its address says `https`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::problem::Problem;

/// Debian's and most others' list of authorities (ca-certificates).
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// A control plane answers from memory or one database.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("{0:?} is no control plane's address: write https://HOST:PORT, or http:// on this machine only")]
    BadUrl(String),
    #[error("cannot read certificate authorities from {path}: {source}")]
    Authorities { path: PathBuf, source: rustls_pki_types::pem::Error },
    #[error("{path} holds no certificate authority")]
    NoAuthority { path: PathBuf },
    #[error("cannot reach the control plane at {url}: {source}")]
    Unreachable { url: String, source: io::Error },
    /// It answered, and the answer is no.
    #[error(transparent)]
    Problem(#[from] Problem),
    #[error("{url} answered {method} {path} with something else than a control plane would: {what}")]
    Strange { url: String, method: Method, path: String, what: String },
}

type Result<T> = std::result::Result<T, RemoteError>;

/// A way to one control plane.
#[derive(Clone)]
pub struct Remote {
    url: String,
    /// Host and port to connect to.
    authority: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    token: Option<String>,
}

/// One answer, of whatever status.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Remote {
    /// `authorities`: a PEM file of those who may vouch for the control plane; `None`: the system's.
    pub fn new(url: &str, authorities: Option<&Path>) -> Result<Self> {
        let bad = || RemoteError::BadUrl(url.to_owned());
        let (scheme, rest) = url.trim_end_matches('/').split_once("://").ok_or_else(bad)?;
        if rest.is_empty() || rest.contains(['/', '?', '#', '@']) {
            return Err(bad());
        }
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse::<u16>().map_err(|_| bad())?),
            _ => (rest, 7443),
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let tls = match scheme {
            "http" if is_loopback(bare) => None,
            "https" => {
                let name = ServerName::try_from(bare.to_owned()).map_err(|_| bad())?;
                Some((connector(authorities)?, name))
            }
            _ => return Err(bad()),
        };
        Ok(Self { url: format!("{scheme}://{rest}"), authority: format!("{host}:{port}"), tls, token: None })
    }

    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.call(Method::GET, path, None::<&()>).await
    }

    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T> {
        let reply = self.ask(method.clone(), path, &[], body).await?;
        let reply = self.accepted(&method, path, reply)?;
        let body: &[u8] = if reply.body.is_empty() { b"null" } else { &reply.body };
        serde_json::from_slice(body).map_err(|error| self.strange(&method, path, error.to_string()))
    }

    /// The reply if it is a success, else its problem.
    pub fn accepted(&self, method: &Method, path: &str, reply: Reply) -> Result<Reply> {
        if reply.status.is_success() {
            return Ok(reply);
        }
        match serde_json::from_slice::<Problem>(&reply.body) {
            Ok(problem) => Err(problem.into()),
            Err(_) => Err(self.strange(method, path, format!("status {} without a problem", reply.status))),
        }
    }

    /// The reply, of whatever status.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&impl Serialize>,
    ) -> Result<Reply> {
        let body = match body {
            Some(body) => serde_json::to_vec(body)
                .map_err(|error| self.strange(&method, path, format!("the request: {error}")))?,
            None => Vec::new(),
        };
        let exchange = async {
            let response = self.send(&method, path, headers, body.into()).await?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| self.broken(error))?.to_bytes();
            Ok(Reply { status: parts.status, headers: parts.headers, body })
        };
        tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err(self.silent()))
    }

    /// An answer whose body goes on.
    pub async fn open(&self, path: &str, headers: &[(&str, &str)]) -> Result<Response<Incoming>> {
        let sending = self.send(&Method::GET, path, headers, Bytes::new());
        let response =
            tokio::time::timeout(PATIENCE, sending).await.unwrap_or_else(|_| Err(self.silent()))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| self.broken(error))?.to_bytes();
        let reply = Reply { status: parts.status, headers: parts.headers, body };
        Err(self.accepted(&Method::GET, path, reply).map_or_else(
            |error| error,
            |_| self.strange(&Method::GET, path, "a success that failed".to_owned()),
        ))
    }

    async fn send(
        &self,
        method: &Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Response<Incoming>> {
        let stream = TcpStream::connect(&self.authority).await.map_err(|error| self.broken(error))?;
        stream.set_nodelay(true).map_err(|error| self.broken(error))?;
        match &self.tls {
            None => self.over(stream, method, path, headers, body).await,
            Some((connector, name)) => {
                let stream =
                    connector.connect(name.clone(), stream).await.map_err(|error| self.broken(error))?;
                self.over(stream, method, path, headers, body).await
            }
        }
    }

    async fn over(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        method: &Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Response<Incoming>> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(error))?;
        // What goes wrong on the connection shows in the request or in the body.
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request =
            request.body(Full::new(body)).map_err(|error| self.strange(method, path, error.to_string()))?;
        sender.send_request(request).await.map_err(|error| self.broken(error))
    }

    pub fn broken(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> RemoteError {
        RemoteError::Unreachable { url: self.url.clone(), source: io::Error::other(error) }
    }

    fn silent(&self) -> RemoteError {
        self.broken(format!("no answer in {} s", PATIENCE.as_secs()))
    }

    pub fn strange(&self, method: &Method, path: &str, what: String) -> RemoteError {
        RemoteError::Strange { url: self.url.clone(), method: method.clone(), path: path.to_owned(), what }
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn connector(authorities: Option<&Path>) -> Result<TlsConnector> {
    let path = authorities.unwrap_or(Path::new(AUTHORITIES));
    let unreadable = |source| RemoteError::Authorities { path: path.to_owned(), source };
    let text = fs::read(path).map_err(|error| unreadable(rustls_pki_types::pem::Error::Io(error)))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        // The system's list may hold one that rustls doesn't take; the others vouch all the same.
        let _ = roots.add(certificate.map_err(unreadable)?);
    }
    if roots.is_empty() {
        return Err(RemoteError::NoAuthority { path: path.to_owned() });
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| RemoteError::NoAuthority { path: path.to_owned() })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_over_tls_or_stays_on_the_machine() {
        assert!(Remote::new("http://127.0.0.1:7443", None).is_ok());
        assert!(Remote::new("http://[::1]:7443", None).is_ok());
        for bad in
            ["http://fra.example:7443", "fra.example", "https://", "https://a/b", "ftp://x", "https://me@x"]
        {
            assert!(matches!(Remote::new(bad, None), Err(RemoteError::BadUrl(_))), "{bad}");
        }
    }
}
