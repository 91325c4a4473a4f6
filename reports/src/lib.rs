//! Telling the answer: the record schema, certificates, plots and reports.
//!
//! A campaign writes [`record::Record`]s, one JSON object per line. Everything this crate makes is a function of
//! such records only: it knows strings and numbers, and no operator. A campaign cut in shards over many machines is
//! the concatenation of its records.

mod error;
pub mod record;

pub use error::Error;
