//! `GET /sse`: writes a mailbox as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::unfold;

use crate::domain::frame::Tick;
use crate::domain::position::Epoch;
use crate::http::error::ApiError;
use crate::http::query::{Query, parse_since};
use crate::http::state::AppState;
use crate::hub::{Backlog, Listener, Transport};
use crate::mailbox::Mail;
use crate::progress::Progress;

/// Milliseconds after which a browser comes back when the stream ends.
const RETRY: &str = "retry: 1000\n\n";
/// The heartbeat: a comment.
const HEARTBEAT: &str = ": \n\n";

/// Opens a connection's stream of events. `Last-Event-ID`, which browsers send when they come
/// back, wins over the query's `since`.
pub async fn sse(
    State(state): State<AppState>,
    method: Method,
    query: Query,
    Extension(progress): Extension<Progress>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = query.connection_id()?;
    let last_id = headers.get("last-event-id").map(|value| value.to_str().unwrap_or("?"));
    let since = match last_id.filter(|id| !id.is_empty()) {
        Some(id) => Some(parse_since(id)?),
        None => query.since()?,
    };
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    if method == Method::HEAD {
        return Ok((headers, Body::empty()).into_response());
    }
    let (listener, backlog) = state.hub.listen(id, since.as_ref(), Transport::Sse)?;
    listener.watch(progress);
    let events = Events {
        listener,
        backlog: Some(backlog),
        epoch: state.hub.epoch().clone(),
        ready: VecDeque::from([Bytes::from_static(RETRY.as_bytes())]),
        handed_over: None,
    };
    let stream = unfold(events, async |mut events| Some((Ok::<_, Infallible>(events.next().await?), events)));
    Ok((headers, Body::from_stream(stream)).into_response())
}

struct Events {
    listener: Listener,
    /// What was missed; none once it was shown.
    backlog: Option<Backlog>,
    epoch: Epoch,
    ready: VecDeque<Bytes>,
    /// What is sent once the next piece is asked for.
    handed_over: Option<Tick>,
}

impl Events {
    /// The next bytes; none: the stream ends, and the client may come back.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Some(bytes);
            }
            if let Some(tick) = self.handed_over.take() {
                self.listener.mark_written(tick);
            }
            if self.backlog.is_some() {
                self.catch_up().await?;
                continue;
            }
            match self.listener.mail().await {
                Mail::Pieces(pieces) => {
                    self.handed_over = pieces.back().map(|piece| piece.tick);
                    self.ready.extend(pieces.iter().map(|piece| piece.event(&self.epoch)));
                }
                Mail::Beat => return Some(Bytes::from_static(HEARTBEAT.as_bytes())),
                Mail::Closed(_) => return None,
            }
        }
    }

    /// Takes the next of what was missed; none: the store cannot be read.
    async fn catch_up(&mut self) -> Option<()> {
        let mut backlog = self.backlog.take()?;
        match backlog.next().await.ok()? {
            Some(piece) => {
                self.ready.push_back(piece.event(&self.epoch));
                self.backlog = Some(backlog);
            }
            None => {
                self.ready.extend(backlog.marker(None).map(|marker| marker.event(&self.epoch)));
                self.handed_over = Some(backlog.tick());
            }
        }
        Some(())
    }
}
