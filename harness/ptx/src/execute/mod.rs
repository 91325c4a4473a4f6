//! Runs the blocks of a launch: a cluster at a time ([`group`]), its warps in turn ([`warp`]), their instructions.

mod access;
pub(crate) mod approximate;
mod atomic;
mod barrier;
mod collective;
mod copy;
pub(crate) mod group;
mod matrix;
mod mbarrier;
mod place;
pub(crate) mod space;
mod warp;
