//! Normalization kernels for the CPU, and the door through which every kernel, ours or a stranger's, is called.
//!
//! [`builtin`] lists the kernels; [`abi`] is the door.

pub mod abi;
pub mod bandwidth;
mod cpu;
mod simd;

pub use cpu::builtin;
pub use simd::{InstructionSet, with_instruction_set};
