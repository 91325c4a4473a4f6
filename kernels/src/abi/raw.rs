//! `include/isonorm.h`, field by field.

use std::ffi::{c_char, c_int, c_void};

/// The version of the interface that this crate speaks.
pub const ABI_VERSION: u32 = 1;

/// The symbol that a library of kernels exports, of type [`LibraryFn`].
pub const LIBRARY_SYMBOL: &str = "isonorm_library_v1";

/// The type of the exported function.
pub type LibraryFn = unsafe extern "C" fn() -> *const Library;

/// Where a tensor lives.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DLDevice {
    /// 1: CPU, 2: CUDA.
    pub device_type: i32,
    /// Which of them.
    pub device_id: i32,
}

/// The CPU.
pub const CPU: DLDevice = DLDevice { device_type: 1, device_id: 0 };

/// An element type as DLPack codes it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DLDataType {
    /// 2: IEEE float, 4: bfloat.
    pub code: u8,
    /// Bits of one element.
    pub bits: u8,
    /// 1.
    pub lanes: u16,
}

/// A DLPack tensor; the memory is borrowed.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DLTensor {
    /// Start of the allocation.
    pub data: *mut c_void,
    /// Where it lives.
    pub device: DLDevice,
    /// Number of dimensions.
    pub ndim: i32,
    /// Element type.
    pub dtype: DLDataType,
    /// Sizes.
    pub shape: *mut i64,
    /// Steps, in elements; never null here.
    pub strides: *mut i64,
    /// Bytes from `data` to the first element.
    pub byte_offset: u64,
}

/// It was done.
pub const OK: c_int = 0;
/// The kernel does not do that.
pub const UNSUPPORTED: c_int = 1;
/// It should have worked and did not.
pub const ERROR: c_int = 2;

/// Kind of an attribute: `real` holds.
pub const REAL: i32 = 0;
/// Kind of an attribute: `integer` holds.
pub const INTEGER: i32 = 1;
/// Kind of an attribute: `text` holds.
pub const TEXT: i32 = 2;

/// A named attribute.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Attribute {
    /// Its name.
    pub name: *const c_char,
    /// [`REAL`], [`INTEGER`] or [`TEXT`].
    pub kind: i32,
    /// The value of a real attribute.
    pub real: f64,
    /// The value of an integer attribute.
    pub integer: i64,
    /// The value of a text attribute.
    pub text: *const c_char,
}

/// A named tensor.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Argument {
    /// Its name.
    pub name: *const c_char,
    /// The tensor.
    pub tensor: DLTensor,
}

/// One call of a kernel.
#[repr(C)]
#[derive(Debug)]
pub struct Call {
    /// [`ABI_VERSION`].
    pub abi_version: u32,
    /// The operator's name.
    pub op: *const c_char,
    /// `forward` or `backward`.
    pub direction: *const c_char,
    /// Number of attributes.
    pub attribute_count: usize,
    /// The attributes.
    pub attributes: *const Attribute,
    /// Number of inputs.
    pub input_count: usize,
    /// The inputs; an absent optional one is not listed.
    pub inputs: *const Argument,
    /// Number of outputs.
    pub output_count: usize,
    /// The outputs.
    pub outputs: *const Argument,
    /// How many threads the kernel may use, at least 1.
    pub threads: i32,
    /// CUDA stream, or null.
    pub stream: *mut c_void,
    /// Room for a reason.
    pub message: *mut c_char,
    /// Bytes of that room.
    pub message_capacity: usize,
}

/// What a library says of one of its kernels.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// Unique in the library.
    pub name: *const c_char,
    /// The operator's name.
    pub op: *const c_char,
    /// `forward` or `backward`.
    pub direction: *const c_char,
    /// Comma-separated, `f32` or `bf16:f32`.
    pub dtypes: *const c_char,
    /// Comma-separated.
    pub layouts: *const c_char,
    /// `f32`, `f64` or null.
    pub precision: *const c_char,
    /// `any`, `blocked:B`, `tree` or null.
    pub reduction: *const c_char,
    /// `approximate` or null.
    pub rsqrt: *const c_char,
    /// Not 0: may be called from several threads at once.
    pub thread_safe: i32,
    /// The kernel.
    pub run: Option<unsafe extern "C" fn(call: *const Call) -> c_int>,
}

/// What a library offers.
#[repr(C)]
#[derive(Debug)]
pub struct Library {
    /// [`ABI_VERSION`] of the header it was compiled with.
    pub abi_version: u32,
    /// Its name.
    pub name: *const c_char,
    /// Its version.
    pub version: *const c_char,
    /// Number of kernels.
    pub kernel_count: usize,
    /// The kernels.
    pub kernels: *const Kernel,
}
