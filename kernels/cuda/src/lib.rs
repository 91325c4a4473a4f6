//! Kernels for CUDA devices as data.
//!
//! A source (CUDA C++, Triton or PTX) and beside it a manifest that says which operators its kernels compute and how they
//! are launched. From both and a call come [launches](launch::Plan) with numbers in them, and the PTX of what they launch
//! ([`compile`]). Our own kernels, `kernels/cuda/*.toml` and their sources, have the format that everybody's have.
//!
//! No CUDA toolkit is needed to build this; NVRTC is opened when something is compiled.

pub mod compile;
pub mod driver;
pub mod expression;
pub mod launch;
pub mod library;
pub mod manifest;

pub use library::{Library, LibraryError};
