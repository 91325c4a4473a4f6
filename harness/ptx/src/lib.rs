#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod check;
mod counters;
mod decode;
mod execute;
mod launch;
mod memory;
mod number;
mod parse;
mod program;

pub use check::finding::{Finding, Kind, Source};
pub use counters::{BufferCounters, Counters, SharedCounters};
pub use execute::approximate::Accuracy;
pub use launch::{Argument, Launch, LaunchError, Module, Options, Order, Outcome};
pub use memory::{Buffer, Memory, Rights};
pub use parse::ParseError;
