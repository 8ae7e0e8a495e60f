//! Channelstream: a push server that stands beside a web application. `ARCHITECTURE.md` has the
//! map; the modules stand bottom-up.

pub mod domain;

pub mod json;
pub mod metrics;

pub mod clock;
pub mod config;
pub mod lock;
pub mod progress;
pub mod signature;
pub mod store;
pub mod wire;

pub mod piece;
pub mod telemetry;

pub mod outlet;

pub mod mailbox;

pub mod beats;
pub mod order;
pub mod visitors;

pub mod live;

pub mod journal;

pub mod hub;

pub mod heartbeat;
pub mod sweeper;

pub mod http;

pub mod tenure;

pub mod app;
pub mod copy;

pub mod cli;
