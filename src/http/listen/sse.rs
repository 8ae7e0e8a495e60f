//! `GET /sse`: writes a mailbox as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::unfold;
use tokio::time::{Instant, sleep_until};

use crate::domain::frame::Tick;
use crate::domain::position::{Cursor, Epoch, Position};
use crate::http::error::ApiError;
use crate::http::query::{Query, parse_since};
use crate::http::state::AppState;
use crate::hub::{Backlog, Listener};
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
    let (listener, backlog) = state.hub.listen(id, since.as_ref(), true)?;
    listener.watch(progress);
    let heartbeat = state.config.heartbeat_interval;
    let events = Events {
        listener,
        backlog: Some(backlog),
        epoch: state.hub.epoch().clone(),
        ready: VecDeque::from([Bytes::from_static(RETRY.as_bytes())]),
        handed_over: None,
        heartbeat,
        beat_at: Instant::now() + heartbeat,
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
    heartbeat: Duration,
    beat_at: Instant,
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
            tokio::select! {
                mail = self.listener.mail() => match mail {
                    Mail::Pieces(pieces) => {
                        self.handed_over = pieces.back().map(|piece| piece.tick);
                        for piece in pieces {
                            self.add(piece.text.as_str(), piece.position);
                        }
                    }
                    Mail::Closed(_) => return None,
                },
                () = sleep_until(self.beat_at) => {
                    self.beat_at = Instant::now() + self.heartbeat;
                    self.listener.beat();
                    return Some(Bytes::from_static(HEARTBEAT.as_bytes()));
                }
            }
        }
    }

    /// Takes the next of what was missed; none: the store cannot be read.
    async fn catch_up(&mut self) -> Option<()> {
        let mut backlog = self.backlog.take()?;
        match backlog.next().await.ok()? {
            Some(part) => {
                self.add(part.text.as_str(), part.position);
                self.backlog = Some(backlog);
            }
            None => {
                if let Some(marker) = backlog.marker(None) {
                    self.add(marker.text.as_str(), marker.position);
                }
                self.handed_over = Some(backlog.tick());
            }
        }
        Some(())
    }

    fn add(&mut self, text: &str, position: Option<Position>) {
        let cursor = position.map(|position| Cursor { epoch: self.epoch.clone(), position });
        self.ready.push_back(event(text, cursor.as_ref()).into());
    }
}

/// One event. In JSON text line breaks stand between tokens only, where any white space will do.
fn event(text: &str, cursor: Option<&Cursor>) -> String {
    let id = cursor.map(|cursor| format!("id: {cursor}\n")).unwrap_or_default();
    let line = if text.contains(['\n', '\r']) { text.replace(['\n', '\r'], " ") } else { text.to_owned() };
    format!("{id}data: {line}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_of_data() {
        let cursor = Cursor::parse("k3f9-7").unwrap();
        assert_eq!(event("[{\"a\":\r\n1}]", Some(&cursor)), "id: k3f9-7\ndata: [{\"a\":  1}]\n\n");
        assert_eq!(event("[]", None), "data: []\n\n");
    }
}
