//! The store in a SQLite file: one writer connection, a few readers, one bulk statement per kind
//! of write. The server holds a lock on a file beside it for as long as it runs.

mod archive;
mod engine;
mod history;
mod read;
mod replay;
mod retention;
mod tails;
mod values;
mod write;

pub use engine::{SqliteDatabase, must_exist};
