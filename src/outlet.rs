//! A websocket's outlet: what is being written to it, and the right to write. Its task has it, or lends it
//! to the mailbox while there is nothing to do, so that new mail is written without waking the task.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::domain::frame::Tick;
use crate::piece::Pieces;
use crate::progress::Progress;

/// Most pieces in one system call.
const MAX_SLICES: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct Outlet {
    tcp: Arc<TcpStream>,
    progress: Progress,
    /// What is being written.
    pub pieces: Pieces,
    /// Bytes of the first that are written.
    written: usize,
}

impl Outlet {
    /// Of a socket, whose progress is noted.
    pub fn new(tcp: Arc<TcpStream>, progress: Progress) -> Self {
        Self { tcp, progress, pieces: Pieces::new(), written: 0 }
    }

    /// How the client takes what is written.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The place of the last frame that is being written; none: there is none.
    pub fn last_tick(&self) -> Option<Tick> {
        self.pieces.back().map(|piece| piece.tick).filter(|tick| *tick > Tick::default())
    }

    /// Writes no more than the rest of a piece that was begun.
    pub fn finish_begun(&mut self) {
        self.pieces.truncate(usize::from(self.written > 0));
    }

    /// Whether something came that its task has not read yet: it may be the end.
    pub fn is_to_be_read(&self) -> bool {
        self.tcp.try_io(Interest::READABLE, || Ok(())).is_ok()
    }

    /// Writes as much as there is room for; whether that was all.
    ///
    /// # Errors
    /// If the connection broke.
    pub fn try_write(&mut self) -> io::Result<bool> {
        while let Some(first) = self.pieces.front() {
            let rest = &first.message()[self.written..];
            let written = if self.pieces.len() == 1 {
                self.tcp.try_write(rest)
            } else {
                let mut slices = [IoSlice::new(rest); MAX_SLICES];
                for (slice, piece) in slices[1..].iter_mut().zip(self.pieces.iter().skip(1)) {
                    *slice = IoSlice::new(piece.message());
                }
                self.tcp.try_write_vectored(&slices[..self.pieces.len().min(MAX_SLICES)])
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => self.advance(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Writes all, whenever there is room.
    ///
    /// # Errors
    /// If the connection broke.
    pub fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.try_write()? {
            ready!(self.tcp.poll_write_ready(context))?;
        }
        Poll::Ready(Ok(()))
    }

    /// So many bytes were written.
    fn advance(&mut self, bytes: usize) {
        self.progress.note();
        self.written += bytes;
        while let Some(first) = self.pieces.front()
            && self.written >= first.message().len()
        {
            self.written -= first.message().len();
            self.pieces.pop_front();
        }
    }
}

/// A TCP connection of which an [`Outlet`] has a part.
#[derive(Debug)]
pub struct SharedTcp(pub Arc<TcpStream>);

impl AsyncRead for SharedTcp {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(context))?;
            match self.0.try_read(buffer.initialize_unfilled()) {
                Ok(bytes) => {
                    buffer.advance(bytes);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for SharedTcp {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(context))?;
            match self.0.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(socket2::SockRef::from(&*self.0).shutdown(Shutdown::Write))
    }
}
