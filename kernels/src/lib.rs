//! Normalization kernels for the CPU, and the door through which every kernel, ours or a stranger's, is called.
//!
//! [`typed`] has them as functions on slices and views, for programs that only want to normalize; [`builtin`] lists them as
//! the door sees them; [`abi`] is the door.

pub mod abi;
pub mod bandwidth;
mod cpu;
mod simd;
pub mod typed;

pub use cpu::builtin;
pub use simd::{InstructionSet, with_instruction_set};
