//! Builds everything from a configuration, serves it, and takes it down in good order.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet, yield_now};
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use crate::config::{Config, SqliteSynchronous};
use crate::http::front::Front;
use crate::http::patience::{Patience, Watched};
use crate::hub::Hub;
use crate::store::{self, StoreError, StoreOptions, Synchronous};
use crate::tenure::{Tenure, TenureError};

/// Most bytes of a request's head.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Connections that wait to be accepted, if the system allows as many (`net.core.somaxconn`): when
/// thousands of listeners come back at once, who finds no room tries again after a second.
const BACKLOG: u32 = 4_096;
/// Connections accepted before all else that is ready gets its turn: when thousands come at once they
/// wait with the system, not before what is shown live.
const ACCEPTED_IN_A_ROW: u32 = 4;
/// How often a connection is looked at for taking too long.
const LOOK: Duration = Duration::from_secs(1);
/// How long what was sent may stay unacknowledged until its connection counts as lost.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// How long to wait when no connection can be accepted, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long sockets get to end after they were closed, and requests to be answered.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Why the server does not start, or stops by itself, in a sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}; is another server running there? See `host` and `port`")]
    Listen {
        /// Which address.
        address: String,
        /// What the system says.
        error: io::Error,
    },
    /// The system does not let signals be caught.
    #[error("SIGTERM and SIGINT cannot be caught: {0}")]
    Signals(io::Error),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store cannot be owned any more.
    #[error(transparent)]
    Tenure(#[from] TenureError),
}

/// A server that runs.
pub struct Server {
    address: SocketAddr,
    front: Arc<Front>,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
    tenure: JoinHandle<TenureError>,
    drain: Duration,
}

impl Server {
    /// Opens the store, listens, and serves.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub async fn start(config: Config) -> Result<Self, ServerError> {
        let wanted = format!("{}:{}", config.host, config.port);
        let listen = |error| ServerError::Listen { address: wanted.clone(), error };
        let listener = bind(&config.host, config.port).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let options = StoreOptions {
            synchronous: match config.sqlite_synchronous {
                SqliteSynchronous::Full => Synchronous::Full,
                SqliteSynchronous::Normal => Synchronous::Normal,
            },
            readers: config.postgres_pool_size,
            timeout: config.postgres_timeout,
            create: true,
        };
        let database = store::database(config.database_url.as_str(), &options).await?;
        let (drain, head_timeout) = (config.drain_seconds, config.request_timeout);
        let config = Arc::new(config);
        let front = Arc::new(Front::new(config.clone()));
        let tenure = Tenure::start(database, config, front.clone()).await?;
        let (stop, stopped) = watch::channel(false);
        let accepting = tokio::spawn(accept(listener, front.clone(), head_timeout, drain, stopped));
        Ok(Self { address, front, stop, accepting, tenure, drain })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything behind its edge, while it owns the store.
    pub fn hub(&self) -> Option<Arc<Hub>> {
        self.front.state().map(|state| state.hub.clone())
    }

    /// Waits until it can serve no more, and says why.
    pub async fn failed(&mut self) -> ServerError {
        match (&mut self.tenure).await {
            Ok(error) => error.into(),
            Err(error) => {
                error!(%error, "the task that owns the store failed");
                TenureError::Journal.into()
            }
        }
    }

    /// Takes it down: no new connections, listeners are sent away over the configured time,
    /// requests are answered, and all that was acknowledged is in the store.
    ///
    /// # Errors
    /// If the store does not take note of it.
    pub async fn stop(self) -> Result<(), StoreError> {
        if let Some(state) = self.front.state() {
            state.draining.store(true, Ordering::Relaxed);
        }
        // Whoever is without a listener while we go down is not at fault: with its tenure ends the sweeping.
        self.tenure.abort();
        let _ = self.tenure.await;
        // Also one that was lost, or had just begun.
        let state = self.front.last_state();
        if let Some(state) = &state {
            state.draining.store(true, Ordering::Relaxed);
        }
        let _ = self.stop.send(true);
        if let Some(state) = &state {
            state.hub.send_away(self.drain).await;
        }
        if let Err(error) = self.accepting.await {
            error!(%error, "the accepting task failed");
        }
        let Some(state) = state else { return Ok(()) };
        let gone = async {
            while state.hub.listener_count() > 0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        // Who has not gone by now is cut off.
        let _ = timeout(LAST_WORDS, gone).await;
        if state.hub.is_lost() {
            return Ok(());
        }
        let stuck = || StoreError::Unavailable("it is stuck: what was not acknowledged may be lost".to_owned());
        timeout(LAST_WORDS, state.hub.stop()).await.map_err(|_| stuck())?
    }
}

/// Listens on the first address of a host on which that is possible.
async fn bind(host: &str, port: u16) -> io::Result<TcpListener> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "it has no address");
    for address in lookup_host((host, port)).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Connections of the server before this one may not have been forgotten yet.
        socket.set_reuseaddr(true)?;
        match socket.bind(address).and_then(|()| socket.listen(BACKLOG)) {
            Ok(listener) => return Ok(listener),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Accepts connections until it is told to stop; then waits for requests under way.
async fn accept(
    listener: TcpListener,
    front: Arc<Front>,
    head_timeout: Duration,
    drain: Duration,
    mut stopped: watch::Receiver<bool>,
) {
    let mut http = hyper::server::conn::http1::Builder::new();
    // Answers are small: head and body in one piece cost the system less than in two.
    http.max_buf_size(MAX_HEAD_BYTES).writev(false);
    let mut connections = JoinSet::new();
    let mut in_a_row = 0;
    loop {
        if in_a_row == ACCEPTED_IN_A_ROW {
            in_a_row = 0;
            yield_now().await;
        }
        in_a_row += 1;
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            () = told(&mut stopped) => break,
        };
        match accepted {
            Ok((tcp, peer)) => {
                let patience = Patience::new(head_timeout);
                connections.spawn(serve(tcp, peer, front.clone(), http.clone(), patience, stopped.clone()));
            }
            Err(error) => {
                warn!(%error, "a connection cannot be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let answered = async { while connections.join_next().await.is_some() {} };
    if timeout(drain + LAST_WORDS, answered).await.is_err() {
        warn!("some requests were not answered in time");
    }
}

/// Waits until it is time to stop; also when nobody is left to say so.
async fn told(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// Serves one connection until it ends, is upgraded, or has been idle since we were told to stop.
async fn serve(
    tcp: TcpStream,
    peer: SocketAddr,
    front: Arc<Front>,
    http: hyper::server::conn::http1::Builder,
    patience: Patience,
    mut stopped: watch::Receiver<bool>,
) {
    // Without the first, small answers wait for the other side's acknowledgement; without the
    // second, who vanished is noticed after a quarter of an hour. Failing is no fault.
    let _ = tcp.set_nodelay(true);
    let _ = socket2::SockRef::from(&tcp).set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    let watch = patience.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (front, answering, progress) = (front.clone(), watch.answering(), watch.progress().clone());
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(progress);
            let response = front.answer(request, peer).await;
            drop(answering);
            Ok::<_, Infallible>(response)
        }
    });
    let stream = TokioIo::new(Watched::new(tcp, patience.clone()));
    let mut connection = pin!(http.serve_connection(stream, service).with_upgrades());
    let mut stopping = false;
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = told(&mut stopped), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = sleep(LOOK) => if patience.is_over() { return },
        }
    };
    if let Err(error) = ended {
        tracing::trace!(%error, %peer, "a connection broke");
    }
}

/// Serves until the process is told to stop (SIGTERM, SIGINT); told twice, it stops at once.
///
/// # Errors
/// See [`ServerError`].
pub async fn run(config: Config) -> Result<(), ServerError> {
    let database = format!("{:?}", config.database_url).replace('"', "");
    // Before anybody can know that the server is there.
    let mut signals = StopSignals::catch().map_err(ServerError::Signals)?;
    let mut server = Server::start(config).await?;
    let address = server.address();
    info!(%address, %database, version = env!("CARGO_PKG_VERSION"), "listening");
    info!("admin panel: http://{address}/admin");
    tokio::select! {
        () = signals.next() => {}
        error = server.failed() => return Err(error),
    }
    info!("going down; tell me again to stop at once");
    let hub = server.hub();
    tokio::select! {
        stopped = server.stop() => stopped?,
        () = signals.next() => warn!("stopped at once"),
    }
    if let Some(hub) = &hub {
        info!("the router's lock was held at most: {}", hub.lock_times());
    }
    info!(replay_reads = hub.map(|hub| hub.replay_reads()), "stopped");
    Ok(())
}

/// SIGTERM and SIGINT, caught from the moment this is made.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn catch() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
