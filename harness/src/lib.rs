//! Asking the question: generators, sandbox, judge and campaigns.

pub mod run;
