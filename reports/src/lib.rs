//! Telling the answer: the record schema, certificates, plots and reports.
//!
//! A campaign writes [`record::Record`]s, one JSON object per line. Everything this crate makes is a function of
//! such records only: it knows strings and numbers, and no operator. A campaign cut in shards over many machines is
//! the concatenation of its records.

pub mod bench;
pub mod certificate;
pub mod claims;
mod error;
pub mod gate;
pub mod html;
pub mod identities;
pub mod json;
pub mod junit;
pub mod plot;
pub mod record;
mod render;
pub mod summary;
pub mod table;
mod write;

pub use error::{BadLine, Error};
pub use write::{write, write_all};
