//! Asking the question: generators, sandbox, judge, campaigns and benchmarks.

pub mod bench;
pub mod campaign;
pub mod case;
pub mod claims;
pub mod commands;
pub mod generate;
pub mod identities;
pub mod judge;
pub mod machine;
pub mod networks;
pub mod run;
