//! Operations: what back ends ask for. Each says what it needs in memory, decides its events, and
//! tells its outcome once they are applied.

mod change_state;
mod configure;
mod connect;
mod contract;
mod delete;
mod edit;
mod expire_floors;
mod expire_messages;
mod forget;
mod forget_channel;
mod forget_user;
mod post;
mod subscribe;
mod sweep;
mod trim;
mod unsubscribe;

pub use change_state::{ChangeState, StateReport};
pub use configure::{Configure, Configured};
pub use connect::{Connect, Connected};
pub use contract::Operation;
pub use delete::{Delete, DeleteOne};
pub use edit::{EditMessages, Receipt};
pub use expire_floors::ExpireFloors;
pub use expire_messages::ExpireMessages;
pub use forget::ForgetIdleUsers;
pub use forget_channel::ForgetChannel;
pub use forget_user::ForgetUser;
pub use post::{Post, PostOne, Posted};
pub use subscribe::{Subscribe, Subscribed};
pub use sweep::Sweep;
pub use trim::Trim;
pub use unsubscribe::{Unsubscribe, Unsubscribed};
