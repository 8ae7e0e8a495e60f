//! How long does a single request keep everybody waiting? Nothing is decided or shown but under the
//! router's lock, so its longest holds are pauses of the whole server.
//!
//! Runs the hub in this process, without sockets, on one thread, so that what is measured is the work
//! under the lock and nothing else. Does to it, one after the other, what is large: channels with many
//! members, connections with many channels, big requests.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use channelstream::domain::names::ConnectionId;
use channelstream::domain::operation::Operation;
use channelstream::domain::replay::Since;
use channelstream::domain::tails::TailLimits;
use channelstream::hub::{Hub, HubOptions, Listener, Transport};
use channelstream::journal::Failure;
use channelstream::lock::{LockTimes, Times};
use channelstream::mailbox::Mail;
use channelstream::store::{self, Synchronous};
use channelstream::wire::request::{self, Invalid};
use clap::Args;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::report::write_json;
use crate::temporary::TemporaryDirectory;

/// Requests that are under way at a time where there are many.
const TOGETHER: usize = 64;
/// Channels in a request that makes many.
const CHANNELS: u64 = 10_000;

/// The longest holds of the router's lock, by what is asked for
#[derive(Debug, Args, Serialize)]
pub struct Options {
    /// Members of the large channel, channels of the connection that has many, messages of the large
    /// request
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    size: u64,
    /// Channels that there are besides
    #[arg(long, default_value_t = 100_000)]
    channels: u64,
    /// Waits until what is not used leaves memory, which takes more than a minute
    #[arg(long)]
    idle: bool,
    /// Also writes the figures here
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    json: Option<std::path::PathBuf>,
}

/// What one thing took.
#[derive(Debug, Serialize)]
struct Figure {
    what: String,
    seconds: f64,
    longest_ms: f64,
    /// What it was held for longest, and all else that took a millisecond.
    purposes: String,
    holds: u64,
    long_holds: u64,
}

/// Runs it.
///
/// # Errors
/// If the hub refuses something.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let directory = TemporaryDirectory::new()?;
    let url = format!("sqlite://{}", directory.path().join("bench.db").display());
    // The disk is not what is measured.
    let (store, start) = store::open(&url, &Synchronous::Normal.into()).await?;
    let hub_options = HubOptions {
        grace: Duration::from_secs(600),
        resume_window: Duration::from_secs(600),
        commit_timeout: Duration::from_secs(600),
        max_queue_bytes: 64 << 20,
        tails: TailLimits::default(),
        max_listeners: None,
        attach_rate: None,
    };
    let hub = Hub::start(store, start, hub_options).await?;
    let mut run = Run { hub, size: options.size, figures: Vec::new() };
    println!("locks: {} members, channels and messages; {} channels besides", options.size, options.channels);
    println!("{:<56}{:>9}{:>12}{:>9}{:>9}  for", "", "s", "longest ms", "≥ 1 ms", "of");
    run.all(&options).await?;
    run.hub.stop().await?;
    write_json(options.json.as_deref(), &run.figures)
}

struct Run {
    hub: Arc<Hub>,
    size: u64,
    figures: Vec<Figure>,
}

impl Run {
    async fn all(&mut self, options: &Options) -> anyhow::Result<()> {
        self.large_channel().await?;
        self.large_requests().await?;
        self.many_channels().await?;
        self.large_server(options.channels).await?;
        self.endings().await?;
        if options.idle {
            tokio::time::sleep(Duration::from_secs(65)).await;
            let hub = self.hub.clone();
            self.measure("what is not used leaves memory", async {
                hub.sweep().await;
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    async fn large_channel(&mut self) -> anyhow::Result<()> {
        let (hub, size) = (self.hub.clone(), self.size);
        self.configure("settings of a channel", json!({ "big": {} })).await?;
        let listeners = self.measure(format!("{size} × /connect into one channel, lists not asked for"), async {
            let members = stream::iter(0..size).map(|index| member(&hub, format!("member-{index}"), "big"));
            members.buffer_unordered(TOGETHER).try_collect::<Vec<_>>().await
        });
        for listener in listeners.await? {
            tokio::spawn(listen(listener));
        }
        let hub = self.hub.clone();
        self.measure("/connect into it, with the list of its members", async {
            let connect = json!({ "username": "late", "channels": ["big"] });
            let connected = ask(&hub, &connect, request::connect).await?;
            anyhow::ensure!(hub.people(connected.view.members()).len() as u64 == size + 1);
            Ok(())
        })
        .await?;
        self.post("one message to its members, not stored", "big", 1).await?;
        self.post("the same again", "big", 1).await?;
        self.configure("settings: store its history", json!({ "big": { "store_history": true } })).await?;
        self.post("one message to its members, stored", "big", 1).await?;
        let presence = json!({ "big": { "notify_presence": true, "broadcast_presence_with_user_lists": true } });
        self.configure("settings: presence frames with lists", presence).await?;
        self.connect("/connect, its members hear of it, with lists", "later", "big").await?;
        self.configure("settings: presence frames", json!({ "big": { "notify_presence": true } })).await?;
        self.connect("/connect, its members hear of it", "latest", "big").await
    }

    async fn large_requests(&mut self) -> anyhow::Result<()> {
        let size = self.size;
        let settings = json!({ "small": {}, "kept": { "store_history": true } });
        self.configure("settings of two channels", settings).await?;
        for channel in ["small", "kept"] {
            tokio::spawn(listen(member(&self.hub, "small-user".to_owned(), channel).await?));
        }
        self.post(&format!("POST of {size} messages, not stored"), "small", size).await?;
        self.post(&format!("POST of {size} messages, stored"), "kept", size).await
    }

    async fn many_channels(&mut self) -> anyhow::Result<()> {
        let (hub, size) = (self.hub.clone(), self.size);
        let names: Vec<String> = (0..size).map(|index| format!("of-many-{index}")).collect();
        let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
        for id in [first, second] {
            ask(&hub, &json!({ "username": "many", "conn_id": id }), request::connect).await?;
        }
        let subscribe = |id: Uuid| json!({ "conn_id": id, "channels": names });
        let asked = |body: &[u8]| request::subscribe(body, None);
        let what = format!("/subscribe to {size} channels that are new");
        self.measure(&what, async { ask(&hub, &subscribe(first), asked).await.map(drop) }).await?;
        let what = format!("/subscribe to {size} channels");
        self.measure(&what, async { ask(&hub, &subscribe(second), asked).await.map(drop) }).await?;
        let state =
            |mood: &str| json!({ "user": "many", "user_state": { "mood": mood }, "state_public_keys": ["mood"] });
        let what = "/user_state of their member";
        self.measure(what, async { ask(&hub, &state("good"), request::change_state).await.map(drop) }).await?;
        let settings: serde_json::Map<String, Value> =
            names.iter().map(|name| (name.clone(), json!({ "notify_state": true }))).collect();
        self.configure(&format!("settings of {size} channels"), settings.into()).await?;
        let what = "/user_state of their member, of which each hears";
        self.measure(what, async { ask(&hub, &state("bad"), request::change_state).await.map(drop) }).await?;
        let what = "a listener comes back to them with a cursor";
        let listener = self.measure(what, async {
            let (listener, mut backlog) = hub
                .listen(ConnectionId(first), Some(&Since::Floors), Transport::LongPoll)
                .map_err(|error| anyhow!("it may not: {error:?}"))?;
            while backlog.next().await.map_err(|error| anyhow!("interrupted: {error:?}"))?.is_some() {}
            Ok(listener)
        });
        let listener = listener.await?;
        self.measure("it goes", async {
            drop(listener);
            Ok(())
        })
        .await?;
        let what = format!("/unsubscribe from {size} channels");
        let asked = |body: &[u8]| request::unsubscribe(body, None);
        self.measure(&what, async { ask(&hub, &subscribe(first), asked).await.map(drop) }).await
    }

    async fn large_server(&mut self, channels: u64) -> anyhow::Result<()> {
        let hub = self.hub.clone();
        let configure = async {
            for first in (0..channels).step_by(CHANNELS as usize) {
                let names = (first..channels.min(first + CHANNELS)).map(|index| format!("one-of-all-{index}"));
                let settings: serde_json::Map<String, Value> = names.map(|name| (name, json!({}))).collect();
                ask(&hub, &settings.into(), request::configure).await?;
            }
            Ok(())
        };
        self.measure(format!("settings: {channels} new channels"), configure).await?;
        let connect = async {
            let all = stream::iter(0..channels).map(|index| {
                let name = format!("user-{index}");
                let body = json!({ "username": name, "channels": [format!("one-of-all-{index}")] });
                let hub = &hub;
                async move { ask(hub, &body, request::connect).await.map(drop) }
            });
            all.buffer_unordered(TOGETHER).try_collect::<()>().await
        };
        self.measure(format!("{channels} × /connect, each to one of them"), connect).await?;
        self.measure("/info", async {
            let mut look = hub.look(Default::default());
            while look.channels().await.map_err(failed)?.is_some() {}
            while look.people().is_some() {}
            Ok(())
        })
        .await?;
        self.measure("admin.json, but for its channels", async {
            let report = hub.report().await.map_err(failed)?;
            report.connected.chunks(500).for_each(|page| drop(hub.connected(page)));
            Ok(())
        })
        .await
    }

    async fn endings(&mut self) -> anyhow::Result<()> {
        let (hub, size) = (self.hub.clone(), self.size);
        let forget = json!({ "channel": "big" });
        let what = "DELETE of the large channel";
        self.measure(what, async { ask(&hub, &forget, request::forget_channel).await.map(drop) }).await?;
        let listeners = self.measure(format!("{size} × /connect of one user"), async {
            let members = stream::iter(0..size).map(|_| member(&hub, "everywhere".to_owned(), "small"));
            members.buffer_unordered(TOGETHER).try_collect::<Vec<_>>().await
        });
        for listener in listeners.await? {
            tokio::spawn(listen(listener));
        }
        let forget = json!({ "user": "everywhere" });
        let what = "DELETE of that user";
        self.measure(what, async { ask(&hub, &forget, request::forget_user).await.map(drop) }).await?;
        let listeners = stream::iter(0..size).map(|index| member(&hub, format!("leaver-{index}"), "small"));
        let listeners: Vec<Listener> = listeners.buffer_unordered(TOGETHER).try_collect().await?;
        let leave = async {
            for mut listener in listeners {
                listener.closed_by_client();
            }
            hub.sweep().await;
            Ok(())
        };
        self.measure(format!("{size} listeners close, their connections end"), leave).await?;
        self.measure("all are sent away", async {
            hub.send_away(Duration::ZERO).await;
            Ok(())
        })
        .await
    }

    // What is measured several times.

    async fn configure(&mut self, what: &str, settings: Value) -> anyhow::Result<()> {
        let hub = self.hub.clone();
        self.measure(what, async { ask(&hub, &settings, request::configure).await.map(drop) }).await
    }

    async fn connect(&mut self, what: &str, user: &str, channel: &str) -> anyhow::Result<()> {
        let hub = self.hub.clone();
        let info = json!({ "include_users": false });
        let body = json!({ "username": user, "channels": [channel], "info": info });
        self.measure(what, async { ask(&hub, &body, request::connect).await.map(drop) }).await
    }

    async fn post(&mut self, what: &str, channel: &str, count: u64) -> anyhow::Result<()> {
        let hub = self.hub.clone();
        let text = "x".repeat(200);
        let message = json!({ "user": "publisher", "channel": channel, "message": { "text": text } });
        let body = Value::from(vec![message; count as usize]).to_string();
        self.measure(what, async {
            let post =
                request::post(body.as_bytes(), hub.now().timestamp()).map_err(|invalid| anyhow!("{invalid:?}"))?;
            hub.post(post, body.len()).await.map(drop).map_err(failed)
        })
        .await
    }

    /// Does one thing and says how long it held the lock.
    async fn measure<T>(
        &mut self,
        what: impl AsRef<str>,
        doing: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let what = what.as_ref();
        let _ = self.hub.take_lock_times();
        let started = Instant::now();
        let done = doing.await.with_context(|| what.to_owned())?;
        let figure = Figure::of(what, started.elapsed(), &self.hub.take_lock_times());
        println!(
            "{what:<56}{:>9.3}{:>12.3}{:>9}{:>9}  {}",
            figure.seconds, figure.longest_ms, figure.long_holds, figure.holds, figure.purposes
        );
        self.figures.push(figure);
        Ok(done)
    }
}

impl Figure {
    fn of(what: &str, took: Duration, times: &LockTimes) -> Self {
        let mut all: Vec<_> = times.iter().collect();
        all.sort_by_key(|(_, times)| std::cmp::Reverse(times.longest));
        let longest = |times: &Times| times.longest.as_secs_f64() * 1e3;
        let told = all.iter().enumerate().filter(|(index, (_, times))| *index == 0 || times.long() > 0);
        let told: Vec<_> =
            told.map(|(_, (purpose, times))| format!("{} {:.1}", purpose.name(), longest(times))).collect();
        Self {
            what: what.to_owned(),
            seconds: took.as_secs_f64(),
            longest_ms: all.first().map_or(0.0, |(_, times)| longest(times)),
            purposes: told.join(", "),
            holds: times.iter().map(|(_, times)| times.count).sum(),
            long_holds: times.iter().map(|(_, times)| times.long()).sum(),
        }
    }
}

fn failed(failure: Failure) -> anyhow::Error {
    anyhow!("the hub answers {failure:?}")
}

/// Asks for one thing, as a back end would.
async fn ask<O: Operation>(
    hub: &Hub,
    body: &Value,
    read: impl FnOnce(&[u8]) -> Result<O, Invalid>,
) -> anyhow::Result<O::Outcome> {
    let body = body.to_string();
    let operation = read(body.as_bytes()).map_err(|invalid| anyhow!("{invalid:?}"))?;
    hub.perform(operation, body.len()).await.map_err(failed)
}

/// A user with a new connection in a channel, that listens.
async fn member(hub: &Arc<Hub>, user: String, channel: &str) -> anyhow::Result<Listener> {
    let id = Uuid::new_v4();
    let info = json!({ "include_users": false, "include_history": false });
    let connect = json!({ "username": user, "conn_id": id, "channels": [channel], "info": info });
    ask(hub, &connect, request::connect).await?;
    let (listener, _) =
        hub.listen(ConnectionId(id), None, Transport::LongPoll).map_err(|error| anyhow!("it may not: {error:?}"))?;
    Ok(listener)
}

/// Takes mail until the end.
async fn listen(listener: Listener) {
    while let Mail::Pieces(_) = listener.mail().await {}
}
