//! Asking the question: generators, sandbox, judge and campaigns.

pub mod case;
pub mod generate;
pub mod judge;
pub mod run;
