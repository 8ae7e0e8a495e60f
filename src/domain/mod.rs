//! What Channelstream is about, pure: no clock, no randomness, no async, no engine, no JSON of
//! ours. Operations decide events against the router; the router applies them and says what is
//! to be shown. The modules stand bottom-up.

pub mod names;
pub mod parted;
pub mod position;
pub mod timestamp;

pub mod message;
pub mod roster;
pub mod settings;
pub mod state;

pub mod frame;

pub mod connection;
pub mod history;

pub mod event;

pub mod tail;

pub mod channel;
pub mod user;

pub mod forgotten;
pub mod tails;

pub mod view;

pub mod router;

mod apply;
pub mod listen;
pub mod replay;

pub mod draft;

pub mod operation;
