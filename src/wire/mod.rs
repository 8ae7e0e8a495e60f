//! The JSON of the protocol, and only the JSON: requests become operations, outcomes become
//! answers, frames become text.

pub mod form;
pub mod frame;
pub mod long;
mod readable;
pub mod reply;
pub mod request;
