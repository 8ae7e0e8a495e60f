//! `/ws`: writes a mailbox to a websocket. What the client says is ignored, but that it is there.

use std::pin::pin;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use futures_util::SinkExt;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::domain::frame::Tick;
use crate::http::error::ApiError;
use crate::http::query::Query;
use crate::http::state::AppState;
use crate::hub::{Backlog, CannotListen, Interrupted, Listener};
use crate::mailbox::{Closing, Mail};
use crate::progress::Progress;

/// Largest message of a client; none has a meaning.
const MAX_CLIENT_MESSAGE: usize = 64 << 10;
/// Small, since an idle socket keeps it.
const READ_BUFFER: usize = 2 << 10;
/// Bytes collected before they are written out.
const WRITE_BUFFER: usize = 4 << 10;
/// Without progress for this long, a client is too slow.
const STALLED: Duration = Duration::from_secs(10);
/// How long a client may take to answer a close.
const CLOSING: Duration = Duration::from_secs(2);
/// The heartbeat: an array without events.
const HEARTBEAT: &str = "[]";

/// Opens a connection's websocket. The handshake also succeeds for an unknown connection, which is
/// then closed with 4001: a browser cannot read a refused handshake.
pub async fn websocket(
    State(state): State<AppState>,
    query: Query,
    Extension(progress): Extension<Progress>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|_| ApiError::UpgradeRequired)?;
    let (id, since) = (query.connection_id()?, query.since()?);
    let listener = match state.hub.listen(id, since.as_ref(), true) {
        Ok(listener) => Some(listener),
        Err(CannotListen::Unknown) => None,
        Err(cannot) => return Err(cannot.into()),
    };
    let heartbeat = state.config.heartbeat_interval;
    let upgrade = upgrade
        .max_message_size(MAX_CLIENT_MESSAGE)
        .max_frame_size(MAX_CLIENT_MESSAGE)
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER);
    Ok(upgrade.on_upgrade(async move |socket| match listener {
        Some((listener, backlog)) => {
            listener.watch(progress.clone());
            serve(Socket { socket, progress }, listener, backlog, heartbeat).await;
        }
        None => Socket { socket, progress }.close(Closing::Unknown).await,
    }))
}

/// How a socket came to its end.
enum End {
    /// The client closed it.
    ByClient,
    /// It broke.
    Lost,
    /// We close it.
    Ours(Closing),
}

async fn serve(mut socket: Socket, mut listener: Listener, backlog: Backlog, heartbeat: Duration) {
    match run(&mut socket, &listener, backlog, heartbeat).await {
        End::ByClient => {
            listener.closed_by_client();
            drop(listener);
            socket.finish().await;
        }
        End::Lost => {}
        // It counts as listening until it was told why it is closed: shutting down waits for that.
        End::Ours(closing) => socket.close(closing).await,
    }
}

async fn run(socket: &mut Socket, listener: &Listener, mut backlog: Backlog, heartbeat: Duration) -> End {
    if let Err(end) = catch_up(socket, &mut backlog).await {
        return end;
    }
    listener.mark_written(backlog.tick());
    drop(backlog);
    let mut beat_at = Instant::now() + heartbeat;
    loop {
        tokio::select! {
            mail = listener.mail() => match mail {
                Mail::Pieces(pieces) => {
                    let tick = pieces.back().map_or(Tick::default(), |piece| piece.tick);
                    if let Err(end) = socket.write(pieces.iter().map(|piece| piece.text.clone())).await {
                        return end;
                    }
                    listener.mark_written(tick);
                }
                Mail::Closed(closing) => return End::Ours(closing),
            },
            heard = socket.socket.recv() => match heard {
                Some(Ok(Message::Close(_))) => return End::ByClient,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return End::Lost,
            },
            () = sleep_until(beat_at) => {
                if let Err(end) = socket.write(std::iter::once(HEARTBEAT.into())).await {
                    return end;
                }
                beat_at = Instant::now() + heartbeat;
                listener.beat();
            }
        }
    }
}

/// Writes what was missed, page by page, as fast as the client takes it, and the marker.
async fn catch_up(socket: &mut Socket, backlog: &mut Backlog) -> Result<(), End> {
    loop {
        match backlog.next().await {
            Ok(Some(part)) => socket.write(std::iter::once(part.text)).await?,
            Ok(None) => break,
            Err(Interrupted::Closed(closing)) => return Err(End::Ours(closing)),
            // The client has to come back, with the cursor that it has.
            Err(Interrupted::Store) => return Err(End::Ours(Closing::GoingAway)),
        }
    }
    match backlog.marker(None) {
        Some(marker) => socket.write(std::iter::once(marker.text)).await,
        None => Ok(()),
    }
}

/// A websocket, and how its client takes what is written.
struct Socket {
    socket: WebSocket,
    progress: Progress,
}

impl Socket {
    /// Writes texts, each a websocket message, with as few writes to the socket as they fit in.
    async fn write(&mut self, texts: impl Iterator<Item = Utf8Bytes>) -> Result<(), End> {
        for text in texts {
            in_time(&self.progress, self.socket.feed(Message::Text(text))).await?;
        }
        in_time(&self.progress, self.socket.flush()).await
    }

    /// Closes the socket, gives the client time to answer, and ends its TCP connection.
    async fn close(mut self, closing: Closing) {
        let (code, reason) = match closing {
            Closing::Ended => (1000, ""),
            Closing::GoingAway => (1012, "the server restarts: come back"),
            Closing::Unknown => (4001, "unknown connection"),
            Closing::Slow => (4008, "too slow: come back"),
            Closing::Replaced => (4010, "opened again elsewhere"),
        };
        let frame = CloseFrame { code, reason: reason.into() };
        if let Ok(Ok(())) = timeout(CLOSING, self.socket.send(Message::Close(Some(frame)))).await {
            self.finish().await;
        }
    }

    /// Reads until the other end is done.
    async fn finish(mut self) {
        let read_on = async { while let Some(Ok(_)) = self.socket.recv().await {} };
        // A client that never answers is cut off.
        let _ = timeout(CLOSING, read_on).await;
    }
}

/// Waits for a step of writing as long as the client takes something now and then.
async fn in_time(progress: &Progress, step: impl Future<Output = Result<(), axum::Error>>) -> Result<(), End> {
    let mut step = pin!(step);
    let mut since = Instant::now();
    loop {
        match timeout_at(since + STALLED, step.as_mut()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(_)) => return Err(End::Lost),
            Err(_) if progress.last().elapsed() < STALLED => since = progress.last().into(),
            Err(_) => return Err(End::Ours(Closing::Slow)),
        }
    }
}
