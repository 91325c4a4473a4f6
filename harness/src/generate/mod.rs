//! Making cases: which problems, which values, which layouts. Nothing here calls a kernel.
//!
//! A campaign asks [`case_at`] for case 0, 1, 2 ... of an operator; tests use the strategy [`cases`]; both shrink through
//! [`CaseTree`]. To add a value family, copy one of [`families`] and name it in [`families::FAMILIES`]: campaigns, texts
//! and tests find it there.

pub mod families;
pub mod layouts;
mod random;
mod shapes;
mod shrink;
mod strategy;

pub use random::{Draws, Random};
pub use shapes::{SIZE_CLASSES, SizeClass, large};
pub use shrink::CaseTree;
pub use strategy::{Cases, Offer, Sizes, case_at, cases};

#[cfg(test)]
pub(crate) mod tests;
