//! Asking the question: generators, sandbox, judge and campaigns.

pub mod judge;
pub mod run;
