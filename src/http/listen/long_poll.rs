//! `GET /listen`: waits for something, then for what follows closely, and answers with all of it.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::domain::frame::Tick;
use crate::domain::position::Position;
use crate::http::answer::JsonText;
use crate::http::error::ApiError;
use crate::http::query::{BadConnectionId, Query};
use crate::http::state::AppState;
use crate::hub::{Backlog, Interrupted, Listener, Transport};
use crate::journal::Failure;
use crate::mailbox::{Closing, Mail};
use crate::wire::form::Faults;

/// How long a poll waits for the first frame. Source: the stock server.
const WAIT: Duration = Duration::from_secs(5);
/// How long it waits for another. Source: the stock server.
const QUIET: Duration = Duration::from_millis(250);
/// How long it collects at most, so that a busy channel cannot hold the answer back.
const COLLECT: Duration = Duration::from_secs(1);
/// Bytes after which it collects no more.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Waits for frames; `callback` asks for JSONP.
pub async fn long_poll(State(state): State<AppState>, method: Method, query: Query) -> Result<Response, ApiError> {
    let id = query.connection_id().map_err(|bad| match bad {
        BadConnectionId::Malformed => ApiError::MalformedPoll,
        missing => missing.into(),
    })?;
    let callback = query.get("callback").filter(|name| !name.is_empty());
    if callback.as_deref().is_some_and(|name| !is_callback(name)) {
        let fault = "Not a valid callback name.";
        return Err(ApiError::Invalid(Faults::from([("callback".to_owned(), fault.into())])));
    }
    if method == Method::HEAD {
        let known = state.hub.knows_connection(id);
        return known.then(|| answer(b"[]".to_vec(), callback.as_deref())).ok_or(ApiError::UnknownListener);
    }
    let (listener, backlog) = state.hub.listen(id, query.since()?.as_ref(), Transport::LongPoll)?;
    Ok(answer(collect(listener, backlog).await?, callback.as_deref()))
}

/// The frames of one poll, as a JSON array.
async fn collect(listener: Listener, mut backlog: Backlog) -> Result<Vec<u8>, ApiError> {
    let first_by = Instant::now() + WAIT;
    let mut frames = Frames::default();
    let mut is_whole = true;
    loop {
        let piece = match backlog.next().await {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(Interrupted::Store) => return Err(Failure::Unavailable.into()),
            // The marker covers what is there.
            Err(Interrupted::Closed(_)) => {
                is_whole = false;
                break;
            }
        };
        frames.add(piece.elements());
        if frames.elements.len() > MAX_ANSWER_BYTES && backlog.marker(None).is_some() {
            is_whole = false;
            break;
        }
    }
    if is_whole {
        frames.tick = Some(backlog.tick());
    }
    // Whoever keeps a cursor and missed something gets that at once.
    if !is_whole || backlog.told_something() {
        return Ok(frames.finish(&listener, &backlog));
    }
    let mut collect_by = None;
    loop {
        let mut next_by = first_by;
        if !frames.elements.is_empty() {
            let now = Instant::now();
            next_by = (now + QUIET).min(*collect_by.get_or_insert(now + COLLECT));
        }
        if frames.elements.len() > MAX_ANSWER_BYTES {
            break;
        }
        match timeout_at(next_by, listener.mail()).await {
            Ok(Mail::Pieces(pieces)) => {
                for piece in pieces {
                    frames.add(piece.elements());
                    frames.tick = Some(piece.tick);
                    frames.position = piece.position.or(frames.position);
                }
            }
            // For connections that stay open.
            Ok(Mail::Beat) => {}
            // Another poll took over: this one ends as if nothing had come.
            Ok(Mail::Closed(Closing::Replaced)) => {
                sleep_until(first_by).await;
                frames = Frames::default();
                break;
            }
            Ok(Mail::Closed(_)) | Err(_) => break,
        }
    }
    Ok(frames.finish(&listener, &backlog))
}

#[derive(Default)]
struct Frames {
    /// Elements of an array.
    elements: Vec<u8>,
    tick: Option<Tick>,
    position: Option<Position>,
}

impl Frames {
    /// The answer, with the marker for a listener that keeps a cursor.
    fn finish(mut self, listener: &Listener, backlog: &Backlog) -> Vec<u8> {
        if let Some(tick) = self.tick {
            listener.mark_written(tick);
        }
        if let Some(marker) = backlog.marker(self.position) {
            self.add(marker.elements());
        }
        [b"[", &self.elements[..], b"]"].concat()
    }

    fn add(&mut self, elements: &[u8]) {
        if !self.elements.is_empty() {
            self.elements.push(b',');
        }
        self.elements.extend_from_slice(elements);
    }
}

fn answer(frames: Vec<u8>, callback: Option<&str>) -> Response {
    match callback {
        // JSON allows these two in strings, older scripts do not.
        Some(name) => {
            let frames = String::from_utf8_lossy(&frames).replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
            script(format!("{name}({frames})"))
        }
        None => JsonText(frames).into_response(),
    }
}

fn script(text: String) -> Response {
    let mut response = text.into_response();
    let script = HeaderValue::from_static("application/javascript; charset=UTF-8");
    response.headers_mut().insert(header::CONTENT_TYPE, script);
    response
}

/// Names like `a.b_1$`: nothing that could be more than the name of a function.
fn is_callback(name: &str) -> bool {
    let part = |part: &str| {
        let starts = part.starts_with(|first: char| first.is_ascii_alphabetic() || "_$".contains(first));
        starts && part.chars().all(|other| other.is_ascii_alphanumeric() || "_$".contains(other))
    };
    name.len() <= 128 && name.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_functions_are_callbacks() {
        for name in ["cb", "my_cb.fn", "$", "a.b_1$"] {
            assert!(is_callback(name), "{name}");
        }
        for name in ["", ".", "a..b", "1a", "alert(1)", "a;b", "a b", "ż", &"a".repeat(129)] {
            assert!(!is_callback(name), "{name}");
        }
    }
}
