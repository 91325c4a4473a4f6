//! Normalization kernels for the CPU, and the door through which every kernel, ours or a stranger's, is called.

pub mod abi;
pub mod cpu;
pub mod simd;

pub use cpu::builtin;
