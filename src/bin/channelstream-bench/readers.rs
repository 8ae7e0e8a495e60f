//! Threads that read the websockets of all listeners, and the board on which they keep the score.
//!
//! Each thread has one event loop, a task for each of its listeners, and one buffer for all of them.
//! It reads what comes as soon as it comes, or, when there is no hurry, lets some messages gather: then
//! it costs a fraction, and the server has more of the machine.

use std::cell::{Cell, RefCell};
use std::net;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::{JoinSet, LocalSet};

use crate::histogram::Histogram;
use crate::listener::Listener;
use crate::websocket::PONG;

/// What a thread reads into.
const BUFFER: usize = 64 << 10;
/// Sockets that a thread visits before it asks again which are ready: asking costs as much as a visit.
const VISITS: u32 = 1_024;
/// How many messages a visit should find when there is no hurry.
const GATHERED: u64 = 16;
/// How long a thread waits for that between two rounds, at least and at most.
const PAUSES: [Duration; 2] = [Duration::from_micros(250), Duration::from_millis(50)];
/// Problems that are told in full.
const TOLD: usize = 10;

/// The score of all listeners.
#[derive(Debug)]
pub struct Board {
    started: Instant,
    /// Messages that were due, over all listeners.
    received: AtomicU64,
    goal: AtomicU64,
    changed: Notify,
    hurry: watch::Sender<bool>,
    failed: AtomicBool,
    problems: Mutex<Problems>,
    latency: Vec<Mutex<Histogram>>,
}

#[derive(Debug, Default)]
struct Problems {
    count: u64,
    told: Vec<String>,
}

impl Board {
    /// For so many threads.
    pub fn new(threads: usize) -> Self {
        Self {
            started: Instant::now(),
            received: AtomicU64::new(0),
            goal: AtomicU64::new(u64::MAX),
            changed: Notify::new(),
            hurry: watch::Sender::new(true),
            failed: AtomicBool::new(false),
            problems: Mutex::default(),
            latency: std::iter::repeat_with(Mutex::default).take(threads).collect(),
        }
    }

    /// Nanoseconds since some moment, never going back.
    pub fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Messages that were due and came, over all listeners.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::SeqCst)
    }

    /// How long messages took since this was asked last.
    pub fn take_latency(&self) -> Histogram {
        let mut all = Histogram::default();
        for latency in &self.latency {
            all.add(&std::mem::take(&mut latency.lock()));
        }
        all
    }

    /// Waits until so many were received. One task at a time may wait.
    ///
    /// # Errors
    /// If something is wrong, or nothing was received for `patience`.
    pub async fn reach(&self, goal: u64, patience: Duration) -> anyhow::Result<()> {
        self.goal.store(goal, Ordering::SeqCst);
        loop {
            self.check()?;
            let before = self.received();
            if before >= goal {
                return Ok(());
            }
            let waited = tokio::time::timeout(patience, self.changed.notified()).await;
            if waited.is_err() && self.received() == before {
                bail!("nothing was received for {patience:?}, and {} of {goal} are missing", goal - before);
            }
        }
    }

    /// Says whether listeners read at once what comes, which they do unless told otherwise.
    pub fn hurry(&self, hurry: bool) {
        self.hurry.send_replace(hurry);
    }

    /// Whether all is well.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.failed.load(Ordering::SeqCst) {
            bail!("listeners did not get what they should");
        }
        Ok(())
    }

    /// Notes what is wrong.
    pub fn complain(&self, problem: String) {
        let mut problems = self.problems.lock();
        problems.count += 1;
        if problems.told.len() < TOLD {
            problems.told.push(problem);
        }
        drop(problems);
        self.failed.store(true, Ordering::SeqCst);
        self.changed.notify_one();
    }

    /// What is wrong, a line each.
    pub fn problems(&self) -> Vec<String> {
        let problems = self.problems.lock();
        let mut lines = problems.told.clone();
        if problems.count > TOLD as u64 {
            lines.push(format!("… and {} more problems", problems.count - TOLD as u64));
        }
        lines
    }

    fn count(&self, messages: u64) {
        let before = self.received.fetch_add(messages, Ordering::SeqCst);
        let goal = self.goal.load(Ordering::SeqCst);
        if before < goal && before + messages >= goal {
            self.changed.notify_one();
        }
    }
}

/// A listener and its socket, which must not block.
pub type Socket = (net::TcpStream, Listener);

/// Threads that read; dropping them ends them.
pub struct Readers {
    threads: Vec<Running>,
}

/// One of them: ends when `stop` is dropped.
struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<anyhow::Result<Vec<Listener>>>,
}

impl Readers {
    /// Starts one thread for each place that the board has, and shares the sockets out.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(sockets: Vec<Socket>, board: &Arc<Board>) -> anyhow::Result<Self> {
        let count = board.latency.len();
        let mut shares: Vec<Vec<Socket>> = std::iter::repeat_with(Vec::new).take(count).collect();
        for (index, socket) in sockets.into_iter().enumerate() {
            shares[index % count].push(socket);
        }
        let mut threads = Vec::new();
        for (index, share) in shares.into_iter().enumerate() {
            let (stop, stopped) = oneshot::channel();
            let board = board.clone();
            let thread = std::thread::Builder::new()
                .name(format!("reader-{index}"))
                .spawn(move || read(share, board, index, stopped))
                .context("the system gives no thread")?;
            threads.push(Running { stop, thread });
        }
        Ok(Self { threads })
    }

    /// Ends them; gives the listeners as they stand.
    ///
    /// # Errors
    /// If a thread failed.
    pub fn stop(self) -> anyhow::Result<Vec<Listener>> {
        let mut listeners = Vec::new();
        for Running { stop, thread } in self.threads {
            drop(stop);
            listeners.extend(thread.join().map_err(|_| anyhow!("a reading thread panicked"))??);
        }
        listeners.sort_unstable_by_key(|listener| listener.index);
        Ok(listeners)
    }
}

/// What the tasks of one thread share.
struct Thread {
    board: Arc<Board>,
    index: usize,
    buffer: RefCell<Box<[u8]>>,
    visits: Cell<u64>,
    messages: Cell<u64>,
}

impl Thread {
    /// Sleeps between rounds while there is no hurry. All listeners whose sockets have something are
    /// visited between two turns of this task.
    async fn sleep_between(&self) {
        let mut hurry = self.board.hurry.subscribe();
        let mut pause = PAUSES[0];
        // The board, which we hold, holds the other end.
        while hurry.wait_for(|hurry| !hurry).await.is_ok() {
            std::thread::sleep(pause);
            let found = self.messages.take();
            let enough = found >= self.visits.take() * GATHERED;
            pause = if enough { pause / 2 } else { pause * 2 }.clamp(PAUSES[0], PAUSES[1]);
            tokio::task::yield_now().await;
        }
    }
}

/// One thread: reads until it is stopped.
fn read(
    share: Vec<Socket>,
    board: Arc<Board>,
    index: usize,
    stopped: oneshot::Receiver<()>,
) -> anyhow::Result<Vec<Listener>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .event_interval(VISITS)
        .max_io_events_per_tick(VISITS as usize)
        .build()
        .context("the system gives no event loop")?;
    let buffer = RefCell::new(vec![0; BUFFER].into_boxed_slice());
    let thread = Rc::new(Thread { board, index, buffer, visits: Cell::default(), messages: Cell::default() });
    LocalSet::new().block_on(&runtime, async {
        let mut tasks = JoinSet::new();
        let sleeper = thread.clone();
        tasks.spawn_local(async move { sleeper.sleep_between().await });
        let mut listeners = Vec::with_capacity(share.len());
        for (socket, listener) in share {
            let stream = TcpStream::from_std(socket).context("a socket cannot be read")?;
            let listener = Rc::new(RefCell::new(listener));
            listeners.push(listener.clone());
            tasks.spawn_local(listen(stream, listener, thread.clone()));
        }
        // An error says that whoever could stop us is gone, which is the same.
        let _ = stopped.await;
        tasks.shutdown().await;
        let taken = listeners.into_iter().filter_map(|listener| Rc::into_inner(listener).map(RefCell::into_inner));
        Ok(taken.collect())
    })
}

/// One listener: reads until its socket ends.
async fn listen(mut stream: TcpStream, listener: Rc<RefCell<Listener>>, thread: Rc<Thread>) {
    let ended = std::future::poll_fn(|context| visit(&mut stream, &mut listener.borrow_mut(), &thread, context)).await;
    let mut listener = listener.borrow_mut();
    thread.board.complain(format!("listener {}: {ended}, after {} messages", listener.index, listener.total()));
    listener.ended = Some(ended);
}

/// Reads what there is; ready when the socket ended.
fn visit(stream: &mut TcpStream, listener: &mut Listener, thread: &Thread, context: &mut Context<'_>) -> Poll<String> {
    let buffer = &mut *thread.buffer.borrow_mut();
    loop {
        let rest = listener.rest().len();
        buffer[..rest].copy_from_slice(listener.rest());
        let mut room = ReadBuf::new(&mut buffer[rest..]);
        // Less than there was room for says that there is no more: no second call is needed to know.
        if let Err(error) = ready!(Pin::new(&mut *stream).poll_read(context, &mut room)) {
            return Poll::Ready(format!("cut off: {error}"));
        }
        let read = room.filled().len();
        if read == 0 {
            return Poll::Ready("cut off without a close frame".to_owned());
        }
        let now = thread.board.now();
        let found = listener.take(&buffer[..rest + read], now, &mut thread.board.latency[thread.index].lock());
        for problem in found.problems {
            thread.board.complain(problem);
        }
        thread.board.count(found.messages);
        if found.is_pinged && stream.try_write(&PONG).is_err() {
            return Poll::Ready("cut off when it was to be answered".to_owned());
        }
        thread.visits.update(|visits| visits + 1);
        thread.messages.update(|messages| messages + found.messages);
        if let Some(ended) = listener.ended.take() {
            return Poll::Ready(ended);
        }
    }
}
