//! What is true: every operator as one formula, and the interpreters of that formula.

pub mod dd;
pub mod formula;
pub mod interpret;
pub mod storage;
