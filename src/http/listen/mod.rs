//! How browsers listen: three ways to empty a mailbox, and the way to say goodbye. Nothing here is
//! signed: knowing a connection id is enough.

mod disconnect;
mod long_poll;
mod sse;
mod websocket;

pub use disconnect::disconnect;
pub use long_poll::long_poll;
pub use sse::sse;
pub use websocket::websocket;
