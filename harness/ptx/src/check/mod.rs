//! The checks: what orders accesses ([`clocks`]), what is remembered of each byte ([`shadow`], [`blocks`]), and what is
//! found ([`finding`]).

pub(crate) mod blocks;
pub(crate) mod clocks;
pub(crate) mod finding;
pub(crate) mod shadow;
