//! The store in a Postgres database: one connection that writes and holds the owner's lock, a pool
//! that reads, one bulk statement per kind of write. A batch that only adds to the log, which most
//! do, is one statement and so one round trip.
//!
//! Queries whose text would be that of a SQLite query end with `-- pg`: the checked descriptions
//! of all queries are found by their text.

mod archive;
mod engine;
mod history;
mod read;
mod replay;
mod retention;
mod session;
mod tails;
mod values;
mod write;

pub use engine::PostgresDatabase;
