//! `/ws`: writes a mailbox to a websocket. What the client says is ignored, but that it is there.
//!
//! What is shown was encoded once for all who get it and goes straight from there to the socket, all
//! that waits with as few system calls as it fits in. The websocket library does the rest: the
//! handshake, reading, answers to pings, and closing.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::future::poll_immediate;
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWrite;
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
use crate::hub::{Backlog, CannotListen, Interrupted, Listener};
use crate::mailbox::{Closing, Mail, Pieces};
use crate::piece::Piece;
use crate::progress::Progress;

/// Largest message of a client; none has a meaning.
const MAX_CLIENT_MESSAGE: usize = 64 << 10;
/// Small, since an idle socket keeps it.
const READ_BUFFER: usize = 128;
/// Most pieces in one system call.
const MAX_SLICES: usize = 64;
/// Without progress for this long, a client is too slow.
const STALLED: Duration = Duration::from_secs(10);
/// How long a client may take to answer a close.
const CLOSING: Duration = Duration::from_secs(2);
/// The heartbeat: an array without events.
static HEARTBEAT: LazyLock<Arc<Piece>> = LazyLock::new(|| Piece::new("[]", Tick::default(), None));

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
    let listener = match state.hub.listen(id, since.as_ref(), true) {
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
    // Who went away before that is seen by nobody.
    let Ok(upgraded) = upgrade.await else { return };
    let Some(mut socket) = Socket::of(upgraded, progress).await else { return };
    let Some((mut listener, backlog)) = listener else { return socket.close(Closing::Unknown).await };
    let tick = backlog.tick();
    // What is waited for only at the beginning or the end need not be part of what waits for long.
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
        End::Ours(closing) => Box::pin(socket.close(closing)).await,
    }
}

/// A websocket, what is being written to it, and how its client takes that.
struct Socket {
    stream: WebSocketStream<TcpStream>,
    ear: Ear,
    outgoing: Outgoing,
    progress: Progress,
}

impl Socket {
    /// None: it is no socket of ours.
    async fn of(upgraded: Upgraded, progress: Progress) -> Option<Self> {
        let parts = upgraded.downcast::<TokioIo<Watched<TcpStream>>>().ok()?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_CLIENT_MESSAGE))
            .max_frame_size(Some(MAX_CLIENT_MESSAGE))
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0);
        let (tcp, early) = (parts.io.into_inner().into_inner(), parts.read_buf.to_vec());
        let stream = WebSocketStream::from_partially_read(tcp, early, Role::Server, Some(config)).await;
        Some(Self { stream, ear: Ear::default(), outgoing: Outgoing::default(), progress })
    }

    /// Writes what was missed, page by page, as fast as the client takes it, and the marker.
    async fn catch_up(&mut self, mut backlog: Box<Backlog>) -> Result<(), End> {
        loop {
            match backlog.next().await {
                Ok(Some(piece)) => self.write(Pieces::from([piece])).await?,
                Ok(None) => break,
                Err(Interrupted::Closed(closing)) => return Err(End::Ours(closing)),
                // The client has to come back, with the cursor that it has.
                Err(Interrupted::Store) => return Err(End::Ours(Closing::GoingAway)),
            }
        }
        match backlog.marker(None) {
            Some(marker) => self.write(Pieces::from([marker])).await,
            None => Ok(()),
        }
    }

    /// Writes all mail until there is an end.
    async fn show(&mut self, listener: &Listener) -> End {
        loop {
            let (heard, mail) = poll_fn(|context| self.poll_turn(listener, context)).await;
            match heard {
                Some(Some(Ok(Message::Close(_)))) => return End::ByClient,
                Some(None | Some(Err(_))) => return End::Lost,
                // The library may have something to say to that.
                Some(Some(Ok(_))) => self.outgoing.is_behind = true,
                None => {}
            }
            let (pieces, tick) = match mail {
                Some(Mail::Pieces(pieces)) => {
                    let tick = pieces.back().map(|piece| piece.tick);
                    (pieces, tick)
                }
                Some(Mail::Beat) => (Pieces::from([HEARTBEAT.clone()]), None),
                Some(Mail::Closed(closing)) => return End::Ours(closing),
                None => continue,
            };
            if let Err(end) = self.write(pieces).await {
                return end;
            }
            if let Some(tick) = tick {
                listener.mark_written(tick);
            }
        }
    }

    /// What is to be done next: something that was heard, or mail, or both.
    fn poll_turn(&mut self, listener: &Listener, context: &mut Context<'_>) -> Poll<(Option<Heard>, Option<Mail>)> {
        let heard = self.ear.listen(&mut self.stream, context);
        match listener.poll_mail(&mut self.outgoing.pieces, context) {
            Poll::Ready(mail) => Poll::Ready((heard, Some(mail))),
            Poll::Pending if heard.is_some() => Poll::Ready((heard, None)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Writes pieces, each a websocket message.
    async fn write(&mut self, pieces: Pieces) -> Result<(), End> {
        let Self { stream, outgoing, progress, .. } = self;
        outgoing.pieces = pieces;
        let mut writing = pin!(outgoing.write(stream, progress));
        // Nearly always there is room for all of it.
        let written = match poll_immediate(writing.as_mut()).await {
            Some(written) => written,
            None => Box::pin(in_time(progress, writing)).await?,
        };
        written.map_err(|_| End::Lost)
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
            // A message that was begun has to end first.
            self.outgoing.pieces.truncate(usize::from(self.outgoing.written > 0));
            self.outgoing.write(&mut self.stream, &self.progress).await?;
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

/// What a client said; none: the socket ended.
type Heard = Option<Result<Message, tokio_tungstenite::tungstenite::Error>>;

/// Reads a socket only when there may be something to read: nearly always its task wakes for mail.
#[derive(Default)]
struct Ear {
    /// Woken by the socket.
    waker: Option<(Arc<EarWaker>, Waker)>,
}

/// Notes that there may be something to read, and wakes the task.
struct EarWaker {
    is_woken: AtomicBool,
    task: Waker,
}

impl Wake for EarWaker {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

impl Ear {
    /// What is heard, if anything is. If not, the task of `context` is woken when there is.
    fn listen(&mut self, stream: &mut WebSocketStream<TcpStream>, context: &mut Context<'_>) -> Option<Heard> {
        let known = self.waker.take().filter(|(ear, _)| ear.task.will_wake(context.waker()));
        let (ear, waker) = self.waker.insert(known.unwrap_or_else(|| {
            let ear = Arc::new(EarWaker { is_woken: AtomicBool::new(true), task: context.waker().clone() });
            (ear.clone(), Waker::from(ear))
        }));
        if !ear.is_woken.swap(false, Ordering::AcqRel) {
            return None;
        }
        match stream.poll_next_unpin(&mut Context::from_waker(waker)) {
            Poll::Ready(heard) => {
                // There may be more.
                ear.is_woken.store(true, Ordering::Release);
                Some(heard)
            }
            Poll::Pending => None,
        }
    }
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

/// Pieces that are being written.
#[derive(Default)]
struct Outgoing {
    pieces: Pieces,
    /// Bytes of the first that are written.
    written: usize,
    /// What the library writes goes first.
    is_behind: bool,
}

impl Outgoing {
    /// Writes them all.
    async fn write(&mut self, stream: &mut WebSocketStream<TcpStream>, progress: &Progress) -> io::Result<()> {
        if self.is_behind {
            stream.flush().await.map_err(io::Error::other)?;
            self.is_behind = false;
        }
        poll_fn(|context| self.poll_write(stream.get_mut(), progress, context)).await
    }

    fn poll_write(
        &mut self,
        tcp: &mut TcpStream,
        progress: &Progress,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while let Some(first) = self.pieces.front() {
            let rest = &first.message()[self.written..];
            let written = if self.pieces.len() == 1 {
                ready!(Pin::new(&mut *tcp).poll_write(context, rest))?
            } else {
                let mut slices = [IoSlice::new(rest); MAX_SLICES];
                for (slice, piece) in slices[1..].iter_mut().zip(self.pieces.iter().skip(1)) {
                    *slice = IoSlice::new(piece.message());
                }
                let count = self.pieces.len().min(MAX_SLICES);
                ready!(Pin::new(&mut *tcp).poll_write_vectored(context, &slices[..count]))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            progress.note();
            self.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// So many bytes were written.
    fn advance(&mut self, bytes: usize) {
        self.written += bytes;
        while let Some(first) = self.pieces.front()
            && self.written >= first.message().len()
        {
            self.written -= first.message().len();
            self.pieces.pop_front();
        }
    }
}
