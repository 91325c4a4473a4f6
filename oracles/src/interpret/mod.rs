//! What a formula can be read as: one file per reading.

pub mod bound;
pub mod exact;
pub mod gradient;
mod walk;

pub use walk::Sizes;
