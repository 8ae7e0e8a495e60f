//! `/ws`: writes a mailbox to a websocket. What the client says is ignored, but that it is there.
//!
//! What is shown was encoded once for all who get it and goes straight from there to the socket, all
//! that waits with as few system calls as it fits in. Mostly that is done by whoever hands it out: the
//! socket's task lends its outlet to the mailbox and sleeps until there is something to read, or no room
//! to write. The websocket library does the rest: the handshake, reading, answers to pings, and closing.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::future::poll_immediate;
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use crate::domain::frame::Tick;
use crate::http::error::ApiError;
use crate::http::patience::Watched;
use crate::http::query::Query;
use crate::http::state::AppState;
use crate::hub::{Backlog, CannotListen, Interrupted, Listener, Transport};
use crate::mailbox::{Closing, Mail};
use crate::outlet::{Outlet, SharedTcp};
use crate::piece::{Piece, Pieces};
use crate::progress::Progress;

/// Largest message of a client; none has a meaning.
const MAX_CLIENT_MESSAGE: usize = 64 << 10;
/// Small, since an idle socket keeps it.
const READ_BUFFER: usize = 128;
/// Without progress for this long, a client is too slow.
const STALLED: Duration = Duration::from_secs(10);
/// How long a client may take to answer a close.
const CLOSING: Duration = Duration::from_secs(2);

/// Opens a connection's websocket. The handshake also succeeds for an unknown connection, which is
/// then closed with 4001: a browser cannot read a refused handshake.
pub async fn websocket(
    State(state): State<AppState>,
    query: Query,
    Extension(progress): Extension<Progress>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let handshake = create_response_with_body(&request, Body::empty).map_err(|_| ApiError::UpgradeRequired)?;
    let (id, since) = (query.connection_id()?, query.since()?);
    let listener = match state.hub.listen(id, since.as_ref(), Transport::Websocket) {
        Ok((listener, backlog)) => {
            listener.watch(progress.clone());
            Some((listener, Box::new(backlog)))
        }
        Err(CannotListen::Unknown) => None,
        Err(cannot) => return Err(cannot.into()),
    };
    tokio::spawn(serve(hyper::upgrade::on(&mut request), progress, listener));
    Ok(handshake)
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

async fn serve(upgrade: OnUpgrade, progress: Progress, listener: Option<(Listener, Box<Backlog>)>) {
    // What is waited for only at the beginning or the end need not be part of what waits for long.
    let Some(mut socket) = Box::pin(Socket::of(upgrade, progress)).await else { return };
    let Some((mut listener, backlog)) = listener else { return Box::pin(socket.close(Closing::Unknown)).await };
    let tick = backlog.tick();
    let end = match Box::pin(socket.catch_up(backlog)).await {
        Ok(()) => {
            listener.mark_written(tick);
            socket.show(&listener).await
        }
        Err(end) => end,
    };
    match end {
        End::ByClient => {
            listener.closed_by_client();
            drop(listener);
            Box::pin(socket.finish()).await;
        }
        End::Lost => {}
        // It counts as listening until it was told why it is closed: shutting down waits for that.
        End::Ours(closing) => {
            listener.close(closing);
            Box::pin(socket.close(closing)).await;
        }
    }
}

/// A websocket. What the library does not write goes through the outlet.
struct Socket {
    stream: WebSocketStream<SharedTcp>,
    /// None: it is lent to the mailbox.
    outlet: Option<Outlet>,
    /// The library may have something to say, which goes before all else.
    is_behind: bool,
}

impl Socket {
    /// None: the client went away before.
    async fn of(upgrade: OnUpgrade, progress: Progress) -> Option<Self> {
        let parts = upgrade.await.ok()?.downcast::<TokioIo<Watched<TcpStream>>>().ok()?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_CLIENT_MESSAGE))
            .max_frame_size(Some(MAX_CLIENT_MESSAGE))
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0);
        let (tcp, early) = (Arc::new(parts.io.into_inner().into_inner()), parts.read_buf.to_vec());
        let outlet = Some(Outlet::new(tcp.clone(), progress));
        let stream = WebSocketStream::from_partially_read(SharedTcp(tcp), early, Role::Server, Some(config)).await;
        Some(Self { stream, outlet, is_behind: false })
    }

    /// Writes what was missed, page by page, as fast as the client takes it, and the marker.
    async fn catch_up(&mut self, mut backlog: Box<Backlog>) -> Result<(), End> {
        loop {
            match backlog.next().await {
                Ok(Some(piece)) => self.put([piece].into()),
                Ok(None) => break,
                Err(Interrupted::Closed(closing)) => return Err(End::Ours(closing)),
                // The client has to come back, with the cursor that it has.
                Err(Interrupted::Store) => return Err(End::Ours(Closing::GoingAway)),
            }
            self.write().await?;
        }
        self.put(backlog.marker(None).into_iter().collect());
        self.write().await.map(|_| ())
    }

    /// Sees to it that all mail is written, until there is an end.
    async fn show(&mut self, listener: &Listener) -> End {
        loop {
            match poll_fn(|context| self.poll_turn(listener, context)).await {
                Turn::Heard(Some(Ok(Message::Close(_)))) => return End::ByClient,
                Turn::Heard(None | Some(Err(_))) => return End::Lost,
                // The library may have something to say to that.
                Turn::Heard(Some(Ok(_))) => self.is_behind = true,
                Turn::Mail(Mail::Closed(closing)) => return End::Ours(closing),
                Turn::Mail(Mail::Beat) => self.put([Piece::heartbeat()].into()),
                Turn::Mail(Mail::Pieces(pieces)) => self.put(pieces),
                Turn::Rest => {}
            }
            match self.write().await {
                Ok(Some(tick)) => listener.mark_written(tick),
                Ok(None) => {}
                Err(end) => return end,
            }
        }
    }

    /// What is to be done next. While that is nothing, the outlet is lent to the mailbox.
    fn poll_turn(&mut self, listener: &Listener, context: &mut Context<'_>) -> Poll<Turn> {
        let outlet = match &mut self.outlet {
            Some(outlet) => outlet,
            lent => lent.insert(ready!(listener.poll_outlet(context))),
        };
        if !outlet.pieces.is_empty() {
            return Poll::Ready(Turn::Rest);
        }
        if let Poll::Ready(heard) = self.stream.poll_next_unpin(context) {
            return Poll::Ready(Turn::Heard(heard));
        }
        listener.poll_mail_or_lend(&mut self.outlet, context).map(Turn::Mail)
    }

    /// Pieces are to be written, each a websocket message.
    fn put(&mut self, pieces: Pieces) {
        if let Some(outlet) = &mut self.outlet {
            outlet.pieces = pieces;
        }
    }

    /// Writes all that is to be written. The place of the last frame among it.
    async fn write(&mut self) -> Result<Option<Tick>, End> {
        let Self { stream, outlet: Some(outlet), is_behind } = self else { return Ok(None) };
        let (tick, progress) = (outlet.last_tick(), outlet.progress().clone());
        let mut writing = pin!(async {
            if *is_behind {
                stream.flush().await.map_err(io::Error::other)?;
                *is_behind = false;
            }
            poll_fn(|context| outlet.poll_write(context)).await
        });
        // Nearly always there is room for all of it.
        let written = match poll_immediate(writing.as_mut()).await {
            Some(written) => written,
            None => Box::pin(in_time(&progress, writing)).await?,
        };
        written.map(|()| tick).map_err(|_| End::Lost)
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
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        let tell = async {
            if let Some(outlet) = &mut self.outlet {
                outlet.finish_begun();
                poll_fn(|context| outlet.poll_write(context)).await?;
            }
            self.stream.send(Message::Close(Some(frame))).await.map_err(io::Error::other)
        };
        if let Ok(Ok(())) = timeout(CLOSING, tell).await {
            self.finish().await;
        }
    }

    /// Reads until the other end is done.
    async fn finish(mut self) {
        let read_on = async { while let Some(Ok(_)) = self.stream.next().await {} };
        // A client that never answers is cut off.
        let _ = timeout(CLOSING, read_on).await;
    }
}

/// What a socket's task has to do.
enum Turn {
    /// The client said something; none: the socket ended.
    Heard(Option<Result<Message, tokio_tungstenite::tungstenite::Error>>),
    /// Something came that is to be written, or the end.
    Mail(Mail),
    /// What a visitor had no room for is to be written.
    Rest,
}

/// Waits for a step of writing as long as the client takes something now and then.
async fn in_time<T>(progress: &Progress, mut step: impl Future<Output = T> + Unpin) -> Result<T, End> {
    let mut since = Instant::now();
    loop {
        match timeout_at(since + STALLED, &mut step).await {
            Ok(done) => return Ok(done),
            Err(_) if progress.last().elapsed() < STALLED => since = progress.last().into(),
            Err(_) => return Err(End::Ours(Closing::Slow)),
        }
    }
}
