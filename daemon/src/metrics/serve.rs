//! `GET /metrics` and nothing else, on a port of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use super::{Format, Metrics};

#[derive(Debug, thiserror::Error)]
#[error("metrics can't be served on {address}: choose another metrics_listen, or \"never\"")]
pub struct ServeError {
    pub address: SocketAddr,
    pub source: io::Error,
}

/// Listens where `metrics_listen` says.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError { address, source })
}

/// Brings the metrics up to date, before somebody reads them.
pub trait Refresh: Send + Sync + 'static {
    fn refresh(&self) -> impl Future<Output = ()> + Send;
}

/// Answers until it is dropped; it ends by itself only with an error.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>, source: impl Refresh) -> io::Result<()> {
    axum::serve(listener, router(metrics, Arc::new(source))).await
}

fn router<R: Refresh>(metrics: Arc<Metrics>, source: Arc<R>) -> Router {
    Router::new().route("/metrics", get(scrape::<R>)).with_state((metrics, source))
}

type Read<R> = State<(Arc<Metrics>, Arc<R>)>;

async fn scrape<R: Refresh>(State((metrics, source)): Read<R>, headers: HeaderMap) -> impl IntoResponse {
    source.refresh().await;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let format = Format::accepted(accept);
    ([(header::CONTENT_TYPE, format.content_type())], metrics.text(format))
}
