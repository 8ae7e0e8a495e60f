//! How browsers listen: two ways to empty a mailbox, and the way to say goodbye. Nothing here is
//! signed: knowing a connection id is enough.

mod disconnect;
mod long_poll;
mod websocket;

pub use disconnect::disconnect;
pub use long_poll::long_poll;
pub use websocket::websocket;
