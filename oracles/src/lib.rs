//! What is true: every operator as one formula, and the interpreters of that formula.

mod apply;
pub mod claims;
pub mod dd;
pub mod formula;
pub mod identities;
pub mod interpret;
pub mod native;
pub mod operators;
mod problem;
pub mod storage;

pub use apply::apply;
pub use problem::{InvalidProblem, Problem, Scope, Tensor};

/// The version of libtorch that this program is built for; the build refuses any other.
pub const LIBTORCH_VERSION: &str = "2.11.0";
