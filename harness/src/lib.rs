//! Asking the question: generators, sandbox, judge and campaigns.

pub mod campaign;
pub mod case;
pub mod commands;
pub mod generate;
pub mod judge;
pub mod machine;
pub mod run;
