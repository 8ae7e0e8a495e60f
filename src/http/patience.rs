//! How long a client may take: for the head of a request, and between two requests on one
//! connection. hyper has one limit for both, but a back end that keeps a connection open for later
//! is no slow client.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::progress::Progress;

/// How long a connection may stay open between two requests: longer than the pools of usual HTTP
/// clients keep theirs, so that it is they who close.
const KEEP_ALIVE: Duration = Duration::from_secs(90);

#[derive(Debug, Clone, Copy)]
enum State {
    /// Between two requests.
    Idle { since: Instant },
    /// Some of a head has come, or none of the first.
    Head { since: Instant },
    /// A request is being answered.
    Busy,
}

/// Watches one connection.
#[derive(Debug, Clone)]
pub struct Patience {
    progress: Progress,
    state: Arc<Mutex<State>>,
    head_timeout: Duration,
}

impl Patience {
    /// A connection was opened; each head may take `head_timeout`.
    pub fn new(head_timeout: Duration) -> Self {
        let now = Instant::now();
        let (progress, state) = (Progress::start(), State::Head { since: now });
        Self { progress, state: Arc::new(Mutex::new(state)), head_timeout }
    }

    /// When something is written.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Something was read.
    fn read(&self) {
        let mut state = self.state.lock();
        if let State::Idle { .. } = *state {
            *state = State::Head { since: Instant::now() };
        }
    }

    /// Something was written, perhaps.
    fn wrote(&self, written: &Poll<io::Result<usize>>) {
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.progress.note();
        }
    }

    /// A head is complete: its request is being answered until the guard is dropped.
    pub fn answering(&self) -> Answering {
        *self.state.lock() = State::Busy;
        Answering(self.clone())
    }

    /// Whether the client takes too long.
    pub fn is_over(&self) -> bool {
        match *self.state.lock() {
            // An answer may still be on its way to a slow client.
            State::Idle { since } => since.max(self.progress.last()).elapsed() > KEEP_ALIVE,
            State::Head { since } => since.elapsed() > self.head_timeout,
            State::Busy => false,
        }
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub struct Answering(Patience);

impl Drop for Answering {
    fn drop(&mut self) {
        *self.0.state.lock() = State::Idle { since: Instant::now() };
    }
}

/// A stream whose reading is watched.
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    patience: Patience,
}

impl<S> Watched<S> {
    /// Watches a stream.
    pub fn new(stream: S, patience: Patience) -> Self {
        Self { stream, patience }
    }

    /// Watches it no more.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.patience.read();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.patience.wrote(&written);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.patience.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
