//! The door: how a kernel is called, whoever wrote it.
//!
//! The C form is `include/isonorm.h`; [`raw`] mirrors it field by field, and the rest of this module is the
//! same door with Rust's types. Nothing that passes through it says whether a kernel is built in or a
//! stranger's.

mod call;
mod descriptor;
mod dtype;
pub mod raw;

pub use call::{Argument, Call, OwnedCall, Tensor, Value};
pub use descriptor::{
    Direction, DtypeSet, Kernel, KernelInfo, Layouts, ParseDescriptorError, Reduction, Refusal, Rsqrt,
};
pub use dtype::{Dtype, UnknownDtype};
