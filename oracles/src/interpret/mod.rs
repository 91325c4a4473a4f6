//! What a formula can be read as: one file per reading.

pub mod bound;
pub mod cost;
pub mod exact;
pub mod gradient;
pub mod text;
pub mod torch;
mod walk;

pub use walk::Sizes;
