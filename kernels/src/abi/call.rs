//! A call, seen from the kernel ([`Call`]) and from the one who makes it ([`OwnedCall`]).

use std::ffi::{CStr, CString, c_char, c_void};
use std::fmt;
use std::ptr;

use super::raw::{self, DLTensor};
use super::{Direction, Dtype, Refusal};

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A real number.
    Real(f64),
    /// A whole number.
    Integer(i64),
    /// One of a set of words.
    Text(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // `{:e}` prints the shortest digits that read back as the same number.
            Value::Real(real) => write!(f, "{real:e}"),
            Value::Integer(integer) => write!(f, "{integer}"),
            Value::Text(text) => f.write_str(text),
        }
    }
}

/// A borrowed tensor: where it starts, its type, sizes and steps.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    /// The first element.
    pub data: *mut u8,
    /// Element type.
    pub dtype: Dtype,
    /// Sizes.
    pub shape: &'a [i64],
    /// Steps, in elements.
    pub strides: &'a [i64],
}

impl Tensor<'_> {
    /// Size and stride of each axis.
    pub fn axes(&self) -> impl DoubleEndedIterator<Item = (i64, i64)> {
        self.shape.iter().copied().zip(self.strides.iter().copied())
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().map(|&size| size as usize).product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the elements lie densely in row-major order. Steps over axes of size 1 do not matter.
    pub fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        for (&size, &stride) in self.shape.iter().zip(self.strides).rev() {
            if size != 1 && stride != expected {
                return self.is_empty();
            }
            expected *= size;
        }
        true
    }
}

/// A call as the kernel sees it.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    raw: &'a raw::Call,
}

impl<'a> Call<'a> {
    /// Reads a call that came through the C interface.
    ///
    /// # Safety
    /// Every pointer in `raw` is valid for `'a`: lists have the stated lengths, names are NUL-terminated UTF-8,
    /// shapes and strides have `ndim` entries, dtypes are those of [`Dtype`], and the elements that shape and strides
    /// reach are readable (inputs) or writable (outputs).
    pub unsafe fn from_raw(raw: &'a raw::Call) -> Self {
        Call { raw }
    }

    /// The operator's name.
    pub fn operator(&self) -> &'a str {
        text(self.raw.op)
    }

    /// Whether this half of this operator is asked for.
    pub fn asks(&self, operator: &str, direction: Direction) -> bool {
        is_named(self.raw.op, operator) && is_named(self.raw.direction, direction.name())
    }

    /// `forward` or `backward`.
    pub fn direction(&self) -> &'a str {
        text(self.raw.direction)
    }

    /// How many threads the kernel may use, at least 1.
    pub fn threads(&self) -> usize {
        self.raw.threads.max(1) as usize
    }

    /// The input of this name, unless it is absent.
    pub fn input(&self, name: &str) -> Option<Tensor<'a>> {
        find(slice(self.raw.inputs, self.raw.input_count), name)
    }

    /// The output of this name, unless it is not asked for.
    pub fn output(&self, name: &str) -> Option<Tensor<'a>> {
        find(slice(self.raw.outputs, self.raw.output_count), name)
    }

    /// The input of this name.
    ///
    /// # Errors
    /// [`Refusal::Failed`] if it is absent.
    pub fn required_input(&self, name: &str) -> Result<Tensor<'a>, Refusal> {
        self.input(name).ok_or_else(|| Refusal::Failed(format!("input `{name}` is missing")))
    }

    /// The output of this name.
    ///
    /// # Errors
    /// [`Refusal::Failed`] if it is absent.
    pub fn required_output(&self, name: &str) -> Result<Tensor<'a>, Refusal> {
        self.output(name).ok_or_else(|| Refusal::Failed(format!("output `{name}` is missing")))
    }

    /// A real attribute.
    ///
    /// # Errors
    /// [`Refusal::Failed`] if it is absent or of another kind.
    pub fn real(&self, name: &str) -> Result<f64, Refusal> {
        self.attribute(name, raw::REAL).map(|attribute| attribute.real)
    }

    /// A whole-number attribute.
    ///
    /// # Errors
    /// [`Refusal::Failed`] if it is absent or of another kind.
    pub fn integer(&self, name: &str) -> Result<i64, Refusal> {
        self.attribute(name, raw::INTEGER).map(|attribute| attribute.integer)
    }

    /// A word attribute.
    ///
    /// # Errors
    /// [`Refusal::Failed`] if it is absent or of another kind.
    pub fn text(&self, name: &str) -> Result<&'a str, Refusal> {
        self.attribute(name, raw::TEXT).map(|attribute| text(attribute.text))
    }

    /// Whether there is an attribute of this name.
    pub fn has_attribute(&self, name: &str) -> bool {
        self.attributes().iter().any(|attribute| is_named(attribute.name, name))
    }

    fn attributes(&self) -> &'a [raw::Attribute] {
        slice(self.raw.attributes, self.raw.attribute_count)
    }

    fn attribute(&self, name: &str, kind: i32) -> Result<&'a raw::Attribute, Refusal> {
        self.attributes()
            .iter()
            .find(|attribute| attribute.kind == kind && is_named(attribute.name, name))
            .ok_or_else(|| Refusal::Failed(format!("attribute `{name}` is missing or of another kind")))
    }
}

fn text<'a>(pointer: *const c_char) -> &'a str {
    // SAFETY: `Call::from_raw` demands NUL-terminated text that outlives the call.
    unsafe { CStr::from_ptr(pointer) }.to_str().unwrap_or_default()
}

/// Whether NUL-terminated text is `name`. Byte by byte, because most names differ in the first, and small calls are made
/// of such costs.
fn is_named(pointer: *const c_char, name: &str) -> bool {
    // SAFETY: as for `text`. Bytes behind the NUL are not reached: it differs from every byte of `name` but a NUL, which
    // is asked for first.
    let same = |(i, byte): (usize, u8)| byte != 0 && unsafe { *pointer.add(i) } as u8 == byte;
    // SAFETY: as above; all bytes before were the same, and none a NUL.
    name.bytes().enumerate().all(same) && unsafe { *pointer.add(name.len()) } == 0
}

fn slice<'a, T>(pointer: *const T, count: usize) -> &'a [T] {
    if count == 0 {
        return &[];
    }
    // SAFETY: `Call::from_raw` demands lists of the stated length that outlive the call.
    unsafe { std::slice::from_raw_parts(pointer, count) }
}

fn find<'a>(list: &'a [raw::Argument], name: &str) -> Option<Tensor<'a>> {
    let tensor = &list.iter().find(|argument| is_named(argument.name, name))?.tensor;
    Some(Tensor {
        data: tensor.data.cast::<u8>().wrapping_add(tensor.byte_offset as usize),
        dtype: Dtype::from_dlpack(tensor.dtype)?,
        shape: slice(tensor.shape, tensor.ndim as usize),
        strides: slice(tensor.strides, tensor.ndim as usize),
    })
}

/// A named tensor of a call to be made.
#[derive(Clone, Debug)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// The first element.
    pub data: *mut u8,
    /// Element type.
    pub dtype: Dtype,
    /// Sizes.
    pub shape: Vec<i64>,
    /// Steps, in elements.
    pub strides: Vec<i64>,
}

/// A call to be made: owns its names, shapes and lists, and borrows the tensors' memory.
pub struct OwnedCall {
    raw: raw::Call,
    message: Box<[u8; 512]>,
    // Everything that `raw` points into; heap blocks, so that moving this struct moves none of them.
    _strings: Vec<CString>,
    _sizes: Vec<Vec<i64>>,
    _attributes: Vec<raw::Attribute>,
    _arguments: Vec<Vec<raw::Argument>>,
}

impl OwnedCall {
    /// Prepares a call.
    ///
    /// # Panics
    /// If a name contains a NUL byte.
    pub fn new(
        operator: &str,
        direction: Direction,
        attributes: &[(String, Value)],
        inputs: Vec<Argument>,
        outputs: Vec<Argument>,
        threads: usize,
    ) -> Self {
        let mut strings = Vec::new();
        let mut intern = |text: &str| {
            strings.push(CString::new(text).expect("names contain no NUL byte"));
            strings.last().expect("just pushed").as_ptr()
        };
        let op = intern(operator);
        let direction = intern(direction.name());
        let attributes: Vec<raw::Attribute> = attributes
            .iter()
            .map(|(name, value)| {
                let mut attribute =
                    raw::Attribute { name: intern(name), kind: raw::REAL, real: 0.0, integer: 0, text: ptr::null() };
                match value {
                    Value::Real(real) => attribute.real = *real,
                    Value::Integer(integer) => (attribute.kind, attribute.integer) = (raw::INTEGER, *integer),
                    Value::Text(text) => (attribute.kind, attribute.text) = (raw::TEXT, intern(text)),
                }
                attribute
            })
            .collect();
        let mut sizes = Vec::new();
        let mut list = |arguments: Vec<Argument>| -> Vec<raw::Argument> {
            arguments
                .into_iter()
                .map(|mut argument| {
                    let tensor = DLTensor {
                        data: argument.data.cast::<c_void>(),
                        device: raw::CPU,
                        ndim: argument.shape.len() as i32,
                        dtype: argument.dtype.to_dlpack(),
                        shape: argument.shape.as_mut_ptr(),
                        strides: argument.strides.as_mut_ptr(),
                        byte_offset: 0,
                    };
                    sizes.push(argument.shape);
                    sizes.push(argument.strides);
                    raw::Argument { name: intern(&argument.name), tensor }
                })
                .collect()
        };
        let (inputs, outputs) = (list(inputs), list(outputs));
        let mut message = Box::new([0; 512]);
        OwnedCall {
            raw: raw::Call {
                abi_version: raw::ABI_VERSION,
                op,
                direction,
                attribute_count: attributes.len(),
                attributes: attributes.as_ptr(),
                input_count: inputs.len(),
                inputs: inputs.as_ptr(),
                output_count: outputs.len(),
                outputs: outputs.as_ptr(),
                threads: threads as i32,
                stream: ptr::null_mut(),
                message: message.as_mut_ptr().cast(),
                message_capacity: message.len(),
            },
            message,
            _strings: strings,
            _sizes: sizes,
            _attributes: attributes,
            _arguments: vec![inputs, outputs],
        }
    }

    /// The call as C sees it.
    pub fn raw(&self) -> &raw::Call {
        &self.raw
    }

    /// The call as a kernel sees it.
    ///
    /// # Safety
    /// The tensors' memory is valid: see [`Call::from_raw`].
    pub unsafe fn view(&self) -> Call<'_> {
        // SAFETY: everything but the tensors' memory is owned by `self`; the caller vouches for that memory.
        unsafe { Call::from_raw(&self.raw) }
    }

    /// What the kernel left in the room for a message.
    pub fn message(&self) -> String {
        let length = self.message.iter().position(|&byte| byte == 0).unwrap_or(self.message.len());
        String::from_utf8_lossy(&self.message[..length]).into_owned()
    }
}
