//! The messages between this program and a kernel's process: lines of JSON. The tensors are in shared memory.

use isonorm_kernels::abi::Value;
use serde::{Deserialize, Serialize};

use super::{Request, TensorArg};

/// The first message of a kernel's process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Greeting {
    /// What the library offers.
    Library(LibraryText),
    /// `dlopen` failed.
    NotLoaded(String),
    /// The library does not export the symbol.
    NoSymbol,
    /// It speaks another version of the interface.
    AbiVersion(u32),
    /// The descriptor is not filled in.
    Malformed(String),
}

/// A library's descriptor, as it has it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LibraryText {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) kernels: Vec<KernelText>,
}

/// A kernel's descriptor, as the library has it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KernelText {
    pub(super) name: String,
    pub(super) operator: String,
    pub(super) direction: String,
    pub(super) dtypes: String,
    pub(super) layouts: String,
    pub(super) precision: Option<String>,
    pub(super) reduction: Option<String>,
    pub(super) rsqrt: Option<String>,
    pub(super) thread_safe: bool,
}

/// Calls to be made, one after the other until one does not succeed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Batch {
    /// Position of the kernel in the library.
    pub(super) kernel: usize,
    pub(super) operator: String,
    pub(super) direction: String,
    pub(super) attributes: Vec<(String, Attribute)>,
    pub(super) inputs: Vec<TensorText>,
    pub(super) outputs: Vec<TensorText>,
    pub(super) threads: usize,
    /// For each call, where each input and then each output lies.
    pub(super) calls: Vec<Vec<Location>>,
}

/// The value of an attribute.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Attribute {
    /// A real number's bits: JSON has no infinities and no NaN.
    Real(u64),
    Integer(i64),
    Text(String),
}

/// A tensor without its memory.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TensorText {
    pub(super) name: String,
    pub(super) dtype: String,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
    pub(super) span: usize,
}

/// Where a tensor's memory is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Location {
    /// Number of the region, below [`super::memory::REGIONS`].
    pub(super) region: usize,
    /// Where the region begins in the shared file, in bytes.
    pub(super) offset: usize,
    /// Its bytes.
    pub(super) length: usize,
    /// Whether the kernel may write to it.
    pub(super) writable: bool,
    /// Where the tensor's first element is in the region, in bytes.
    pub(super) start: usize,
}

/// What came of the calls of a [`Batch`] that were made.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Reply {
    pub(super) calls: Vec<Returned>,
}

/// What came of one call.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Returned {
    pub(super) status: i32,
    /// What the kernel says, if it did not succeed.
    pub(super) message: String,
    pub(super) seconds: f64,
    /// What changed in the floating-point environment.
    pub(super) float_change: Option<String>,
    /// Threads more than there may be.
    pub(super) threads: usize,
    /// Whether outputs changed after the call had returned.
    pub(super) wrote_later: bool,
}

impl Batch {
    /// The calls of a request with its tensors at each of these places.
    pub(super) fn new(request: &Request, kernel: usize, calls: Vec<Vec<Location>>) -> Self {
        let tensors = |list: &[TensorArg]| list.iter().map(TensorText::new).collect();
        let attribute = |(name, value): &(String, Value)| {
            let value = match value {
                Value::Real(real) => Attribute::Real(real.to_bits()),
                Value::Integer(integer) => Attribute::Integer(*integer),
                Value::Text(text) => Attribute::Text(text.clone()),
            };
            (name.clone(), value)
        };
        Batch {
            kernel,
            operator: request.operator.clone(),
            direction: request.direction.name().to_owned(),
            attributes: request.attributes.iter().map(attribute).collect(),
            inputs: tensors(&request.inputs),
            outputs: tensors(&request.outputs),
            threads: request.threads,
            calls,
        }
    }
}

impl TensorText {
    fn new(tensor: &TensorArg) -> Self {
        TensorText {
            name: tensor.name.clone(),
            dtype: tensor.dtype.name().to_owned(),
            shape: tensor.shape.clone(),
            strides: tensor.strides.clone(),
            span: tensor.span,
        }
    }
}
