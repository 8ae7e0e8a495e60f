//! `GET /metrics`: what a monitoring system reads, in the text format of Prometheus (OpenMetrics).

use std::fmt;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::health::readiness;
use super::session::{Admin, Anonymous};
use crate::config::Config;
use crate::http::error::ApiError;
use crate::http::state::AppState;
use crate::lock::{LockTimes, Times};

/// What the answer is.
const KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Of the classes of [`Times`], those whose upper limits are told: 16 and 128 µs, 1, 8 and 33 ms.
const LOCK_CLASSES: [usize; 5] = [4, 7, 10, 13, 15];

/// `GET /metrics`
pub async fn metrics(
    State(state): State<AppState>,
    headers: HeaderMap,
    admin: Result<Admin, Anonymous>,
) -> Result<Response, ApiError> {
    if admin.is_err() && !has_token(&state.config, &headers) {
        return Err(ApiError::Forbidden);
    }
    let mut registry = of_process();
    state.hub.metrics().register(&mut registry);
    state.requests.register(&mut registry);
    of_moment(&state, &mut registry).await;
    exposition(&registry)
}

/// The same of a server that stands by: it has nothing but itself.
pub fn standby_metrics(config: &Config, headers: &HeaderMap) -> Result<Response, ApiError> {
    if !has_token(config, headers) {
        return Err(ApiError::Forbidden);
    }
    let mut registry = of_process();
    owner(&mut registry, false);
    exposition(&registry)
}

/// Whether a request has the token of the configuration.
fn has_token(config: &Config, headers: &HeaderMap) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.split_once(' ')).filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
    let (Some(token), Some((_, given))) = (&config.metrics_token, given) else { return false };
    token.matches(given.trim())
}

fn exposition(registry: &Registry) -> Result<Response, ApiError> {
    let mut text = String::new();
    encode(&mut text, registry).map_err(|fmt::Error| ApiError::Unavailable("The figures cannot be written."))?;
    Ok(([(header::CONTENT_TYPE, KIND), (header::CACHE_CONTROL, "no-store")], text).into_response())
}

/// What every process has, under the names that are usual for it.
fn of_process() -> Registry {
    let mut registry = Registry::default();
    let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("channelstream_build", "The program", build);
    let Ok(process) = procfs::process::Process::myself() else { return registry };
    if let Ok(stat) = process.stat() {
        let memory = stat.rss * procfs::page_size();
        registry.register("process_resident_memory_bytes", "Memory in use", ConstGauge::new(memory));
        let cpu = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
        registry.register("process_cpu_seconds", "Time that processors worked for it", ConstCounter::new(cpu));
        registry.register("process_threads", "Threads", ConstGauge::new(stat.num_threads));
        if let Ok(booted) = procfs::boot_time_secs() {
            let started = booted as f64 + stat.starttime as f64 / procfs::ticks_per_second() as f64;
            let help = "When it started, in seconds since 1970";
            registry.register("process_start_time_seconds", help, ConstGauge::new(started));
        }
    }
    if let Ok(open) = process.fd_count() {
        registry.register("process_open_fds", "Open files and sockets", ConstGauge::new(open as u64));
    }
    if let Ok(procfs::process::LimitValue::Value(most)) =
        process.limits().map(|limits| limits.max_open_files.soft_limit)
    {
        registry.register("process_max_fds", "Most files and sockets that it may open", ConstGauge::new(most));
    }
    registry
}

fn owner(registry: &mut Registry, owns: bool) {
    let help = "1: this server owns the store and serves; 0: it stands by";
    registry.register("channelstream_owner", help, ConstGauge::new(u64::from(owns)));
}

/// What is found out by looking.
async fn of_moment(state: &AppState, registry: &mut Registry) {
    let figures = state.hub.figures();
    owner(registry, true);
    registry.register(
        "channelstream_deliveries",
        "Frames put before listeners, once for each of them",
        ConstCounter::new(figures.deliveries),
    );
    registry.register(
        "channelstream_lock_seconds",
        "How long the lock of the live state was held, by purpose",
        LockHolds(state.hub.lock_times()),
    );
    let mut gauge = |name: &str, help: &str, value: u64| registry.register(name, help, ConstGauge::new(value));
    gauge("channelstream_ready", "1: /readyz says that it is ready", u64::from(readiness(state).is_ok()));
    gauge("channelstream_connections", "Valid connection ids", figures.connections as u64);
    gauge("channelstream_channels_resident", "Channels in memory", figures.channels as u64);
    gauge("channelstream_users_resident", "Users in memory", figures.users as u64);
    gauge("channelstream_head_position", "Position of the newest logged event", figures.head.0);
    gauge("channelstream_queued_pieces", "Pieces that wait for all listeners", figures.waiting_pieces as u64);
    gauge("channelstream_queued_bytes", "Bytes that wait for all listeners", figures.waiting_bytes as u64);
    gauge("channelstream_queue_fullest_bytes", "Bytes that wait for the slowest", figures.fullest_bytes as u64);
    gauge("channelstream_queue_limit_bytes", "max_queue_bytes", state.config.max_queue_bytes as u64);
    gauge("channelstream_tail_bytes", "Bytes of the log in memory", figures.tail_bytes as u64);
    gauge("channelstream_tail_limit_bytes", "tail_memory", state.config.tail_memory as u64);
    gauge("channelstream_journal_queued_requests", "Requests to be committed", figures.journal_requests as u64);
    gauge("channelstream_journal_queued_bytes", "Bytes of requests under way", figures.journal_bytes as u64);
    if let Some(bytes) = state.hub.store_size().await {
        gauge("channelstream_store_size_bytes", "Bytes that the store takes", bytes);
    }
}

/// How long the lock was held, for each purpose.
#[derive(Debug)]
struct LockHolds(LockTimes);

impl EncodeMetric for LockHolds {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (purpose, times) in self.0.iter() {
            let labels = [("purpose", purpose.name())];
            let buckets = buckets(times);
            let total = times.total.as_secs_f64();
            encoder.encode_family(&labels)?.encode_histogram::<NoLabelSet>(total, times.count, &buckets, None)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// Fewer buckets than there are classes: each with its upper limit in seconds, and how many fell into it.
fn buckets(times: &Times) -> Vec<(f64, u64)> {
    let mut buckets = Vec::new();
    let mut from = 0;
    for class in LOCK_CLASSES {
        buckets.push(((1_u64 << class) as f64 / 1e6, times.classes[from..=class].iter().sum()));
        from = class + 1;
    }
    buckets.push((f64::INFINITY, times.classes[from..].iter().sum()));
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hold_is_in_one_bucket() {
        let mut times = Times::default();
        times.classes[0] = 1;
        times.classes[4] = 2; // shorter than 16 µs
        times.classes[5] = 4;
        times.classes[16] = 8;
        let buckets = buckets(&times);
        assert_eq!(buckets[0], (16e-6, 3));
        assert_eq!(buckets[1], (128e-6, 4));
        assert_eq!(buckets[5], (f64::INFINITY, 8));
        assert_eq!(buckets.iter().map(|(_, count)| count).sum::<u64>(), 15);
    }
}
