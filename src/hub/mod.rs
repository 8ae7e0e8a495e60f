//! The hub: the async face of everything behind the edge. Handlers and listeners know it and
//! nothing below it.

mod backlog;
mod core;
mod figures;
mod listener;
mod look;
mod restore;

pub use backlog::{Backlog, Interrupted};
pub use core::{CannotListen, Hub, HubOptions};
pub use figures::Figures;
pub use listener::{Listener, Transport};
pub use look::{Look, NoHistory};
