//! `GET /metrics` and nothing else, on a port of its own.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use axum::routing::get;
use dormouse_api::exposition::Format;
use tokio::net::TcpListener;

use super::seen;
use crate::app::Shared;

/// Less than Prometheus waits for a scrape (10 s by default): a database that is away is told, not waited for.
const PATIENCE: Duration = Duration::from_secs(3);

pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("metrics can't be served on {address}: choose another --metrics-listen"))
}

/// Answers until it is dropped; it ends by itself only with an error.
pub async fn serve(listener: TcpListener, app: Shared) -> io::Result<()> {
    axum::serve(listener, Router::new().route("/metrics", get(scrape)).with_state(app)).await
}

async fn scrape(State(app): State<Shared>, headers: HeaderMap) -> impl IntoResponse {
    let seen = match tokio::time::timeout(PATIENCE, seen::look(&app.db, app.redis.is_some())).await {
        Ok(Ok(seen)) => Some(seen),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the database does not answer the metrics");
            None
        }
        Err(_) => None,
    };
    app.metrics.read().database = seen;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let format = Format::accepted(accept);
    ([(header::CONTENT_TYPE, format.content_type())], app.metrics.text(format))
}
