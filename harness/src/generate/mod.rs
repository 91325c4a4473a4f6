//! Making cases: which problems, which values, which layouts. Nothing here calls a kernel.

pub mod families;
pub mod layouts;
mod random;
mod shapes;
mod shrink;
mod strategy;

pub use random::{Draws, Random};
pub use shapes::{SIZE_CLASSES, SizeClass, large};
pub use shrink::CaseTree;
pub use strategy::{Cases, Offer, case_at, cases};

#[cfg(test)]
pub(crate) mod tests;
