//! A call of any built-in kernel.

use std::ffi::CStr;
use std::marker::PhantomData;
use std::ptr;

use smallvec::SmallVec;

use super::{Scalar, View, ViewMut};
use crate::abi::raw::{self, Argument, Attribute};
use crate::abi::{Call, Direction, Refusal};
use crate::cpu;

/// A call of any built-in kernel, put together tensor by tensor. Names are those of `isonorm explain`; what an operator
/// need not have may be left out.
///
/// ```
/// use isonorm_kernels::abi::Direction;
/// use isonorm_kernels::typed::{Operation, View, ViewMut};
///
/// // Two samples of two channels, channels last: 2 x 2 x 3 places in memory as 2 x 3 x 2.
/// let x: Vec<f32> = (0..12).map(|i| i as f32).collect();
/// let mut y = vec![0.0f32; 12];
/// Operation::new(c"group_norm", Direction::Forward)
///     .input(c"x", &View::strided(&x, &[2, 2, 3], &[6, 1, 2])?)
///     .output(c"y", &mut ViewMut::strided(&mut y, &[2, 2, 3], &[6, 1, 2])?)
///     .real(c"eps", 1e-5)
///     .integer(c"num_groups", 2)
///     .threads(2)
///     .run()?;
/// assert!((y[0] + 1.2247).abs() < 1e-3 && y[2].abs() < 1e-6); // channel 0 is 0, 2, 4
/// # Ok::<(), isonorm_kernels::abi::Refusal>(())
/// ```
#[derive(Debug)]
pub struct Operation<'a> {
    operator: &'a CStr,
    direction: Direction,
    inputs: SmallVec<[Argument; 6]>,
    outputs: SmallVec<[Argument; 3]>,
    attributes: SmallVec<[Attribute; 3]>,
    threads: usize,
    _views: PhantomData<&'a mut ()>,
}

impl<'a> Operation<'a> {
    /// A call without tensors yet, on one thread.
    pub fn new(operator: &'a CStr, direction: Direction) -> Self {
        Operation {
            operator,
            direction,
            inputs: SmallVec::new(),
            outputs: SmallVec::new(),
            attributes: SmallVec::new(),
            threads: 1,
            _views: PhantomData,
        }
    }

    /// Gives an input.
    pub fn input<'v: 'a, T: Scalar>(mut self, name: &'a CStr, view: &'a View<'v, T>) -> Self {
        self.inputs.push(Argument { name: name.as_ptr(), tensor: view.tensor() });
        self
    }

    /// Asks for an output.
    pub fn output<'v: 'a, T: Scalar>(mut self, name: &'a CStr, view: &'a mut ViewMut<'v, T>) -> Self {
        self.outputs.push(Argument { name: name.as_ptr(), tensor: view.tensor() });
        self
    }

    /// Sets an attribute that is a real number.
    pub fn real(self, name: &'a CStr, value: f64) -> Self {
        self.attribute(Attribute { name: name.as_ptr(), kind: raw::REAL, real: value, integer: 0, text: ptr::null() })
    }

    /// Sets an attribute that is a whole number.
    pub fn integer(self, name: &'a CStr, value: i64) -> Self {
        let name = name.as_ptr();
        self.attribute(Attribute { name, kind: raw::INTEGER, real: 0.0, integer: value, text: ptr::null() })
    }

    /// Sets an attribute that is a word.
    pub fn text(self, name: &'a CStr, value: &'a CStr) -> Self {
        let (name, text) = (name.as_ptr(), value.as_ptr());
        self.attribute(Attribute { name, kind: raw::TEXT, real: 0.0, integer: 0, text })
    }

    fn attribute(mut self, attribute: Attribute) -> Self {
        self.attributes.push(attribute);
        self
    }

    /// Allows more than one thread. The results are the same, bit by bit.
    pub fn threads(self, threads: usize) -> Self {
        Operation { threads, ..self }
    }

    /// Computes the outputs.
    ///
    /// # Errors
    /// [`Refusal`] if there is no such operator, or if a tensor or attribute is missing or does not fit; outputs are
    /// unchanged then.
    pub fn run(self) -> Result<(), Refusal> {
        let name = self.operator.to_str().unwrap_or_default();
        let run = cpu::find(name, self.direction)
            .ok_or_else(|| Refusal::Unsupported(format!("there is no operator {name:?}")))?;
        let direction = match self.direction {
            Direction::Forward => c"forward",
            Direction::Backward => c"backward",
        };
        let call = raw::Call {
            abi_version: raw::ABI_VERSION,
            op: self.operator.as_ptr(),
            direction: direction.as_ptr(),
            attribute_count: self.attributes.len(),
            attributes: self.attributes.as_ptr(),
            input_count: self.inputs.len(),
            inputs: self.inputs.as_ptr(),
            output_count: self.outputs.len(),
            outputs: self.outputs.as_ptr(),
            threads: self.threads.try_into().unwrap_or(i32::MAX),
            stream: ptr::null_mut(),
            message: ptr::null_mut(),
            message_capacity: 0,
        };
        // SAFETY: the lists are `self`'s; names, and the views that shapes, strides and elements belong to, are borrowed
        // for 'a, the outputs' exclusively; a view does not reach beyond its slice.
        run(&unsafe { Call::from_raw(&call) })
    }
}
