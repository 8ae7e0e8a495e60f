//! What back ends ask for: each handler reads a typed request, asks the hub once, and writes a
//! typed answer.

mod channel_config;
mod connect;
mod forget;
mod history;
mod info;
mod message;
mod subscription;
mod user_state;

pub use channel_config::channel_config;
pub use connect::connect;
pub use forget::{forget_channel, forget_user};
pub use history::history;
pub use info::info;
pub use message::{delete, edit, post};
pub use subscription::{subscribe, unsubscribe};
pub use user_state::user_state;
