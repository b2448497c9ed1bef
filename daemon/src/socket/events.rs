//! The stream of events: one line of JSON each.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Bytes, HttpBody};
use dormouse_api::event::{Event, EventFilter};
use hyper::body::Frame;
use tokio::sync::mpsc;

/// An endless body, fed by the operator.
pub struct Lines {
    pub events: mpsc::Receiver<Event>,
    pub filter: EventFilter,
}

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            let Some(event) = ready!(self.events.poll_recv(context)) else {
                return Poll::Ready(None);
            };
            if !self.filter.matches(&event) {
                continue;
            }
            match serde_json::to_vec(&event) {
                Ok(mut line) => {
                    line.push(b'\n');
                    return Poll::Ready(Some(Ok(Frame::data(line.into()))));
                }
                Err(error) => tracing::error!(%error, "an event cannot be written as JSON"),
            }
        }
    }
}
