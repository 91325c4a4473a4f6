//! Strided tensors in slices.

use half::{bf16, f16};
use smallvec::SmallVec;

use crate::abi::raw::{CPU, DLTensor};
use crate::abi::{Dtype, Refusal};

/// A type that tensors are stored in: `f32`, `f64`, [`half::bf16`] or [`half::f16`].
pub trait Scalar: sealed::Sealed {
    /// What the door calls it.
    const DTYPE: Dtype;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! scalar {
    ($($scalar:ty: $dtype:ident),*) => {$(
        impl sealed::Sealed for $scalar {}
        impl Scalar for $scalar {
            const DTYPE: Dtype = Dtype::$dtype;
        }
    )*};
}
scalar!(f32: F32, f64: F64, bf16: Bf16, f16: F16);

type Sizes = SmallVec<[i64; 6]>;

/// A tensor to read: sizes and steps over a slice.
#[derive(Clone, Debug)]
pub struct View<'a, T> {
    data: &'a [T],
    shape: Sizes,
    strides: Sizes,
}

/// A tensor to write: sizes and steps over a slice.
#[derive(Debug)]
pub struct ViewMut<'a, T> {
    data: &'a mut [T],
    shape: Sizes,
    strides: Sizes,
}

impl<'a, T: Scalar> View<'a, T> {
    /// A dense tensor in row-major order.
    ///
    /// # Errors
    /// If the slice is not of that size.
    pub fn dense(data: &'a [T], shape: &[usize]) -> Result<Self, Refusal> {
        let (shape, strides) = dense(data.len(), shape)?;
        Ok(View { data, shape, strides })
    }

    /// A tensor of any strides, in elements, that starts where the slice does. A stride of 0 repeats an element.
    ///
    /// # Errors
    /// If it reaches beyond the slice, or has not as many strides as sizes.
    pub fn strided(data: &'a [T], shape: &[usize], strides: &[usize]) -> Result<Self, Refusal> {
        let (shape, strides) = strided(data.len(), shape, strides)?;
        Ok(View { data, shape, strides })
    }

    pub(super) fn tensor(&self) -> DLTensor {
        tensor::<T>(self.data.as_ptr().cast_mut(), &self.shape, &self.strides)
    }
}

impl<'a, T: Scalar> ViewMut<'a, T> {
    /// A dense tensor in row-major order.
    ///
    /// # Errors
    /// If the slice is not of that size.
    pub fn dense(data: &'a mut [T], shape: &[usize]) -> Result<Self, Refusal> {
        let (shape, strides) = dense(data.len(), shape)?;
        Ok(ViewMut { data, shape, strides })
    }

    /// A tensor of any strides, in elements, that starts where the slice does. Kernels refuse one whose elements overlap.
    ///
    /// # Errors
    /// If it reaches beyond the slice, or has not as many strides as sizes.
    pub fn strided(data: &'a mut [T], shape: &[usize], strides: &[usize]) -> Result<Self, Refusal> {
        let (shape, strides) = strided(data.len(), shape, strides)?;
        Ok(ViewMut { data, shape, strides })
    }

    pub(super) fn tensor(&mut self) -> DLTensor {
        tensor::<T>(self.data.as_mut_ptr(), &self.shape, &self.strides)
    }
}

fn tensor<T: Scalar>(data: *mut T, shape: &Sizes, strides: &Sizes) -> DLTensor {
    DLTensor {
        data: data.cast(),
        device: CPU,
        ndim: shape.len() as i32,
        dtype: T::DTYPE.to_dlpack(),
        shape: shape.as_ptr().cast_mut(),
        strides: strides.as_ptr().cast_mut(),
        byte_offset: 0,
    }
}

fn dense(len: usize, shape: &[usize]) -> Result<(Sizes, Sizes), Refusal> {
    let mut strides: SmallVec<[usize; 6]> = SmallVec::from_elem(1, shape.len());
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
    }
    let count = shape.iter().try_fold(1usize, |count, &size| count.checked_mul(size));
    if count != Some(len) {
        return Err(Refusal::Failed(format!("a slice of {len} elements for a tensor of sizes {shape:?}")));
    }
    strided(len, shape, &strides)
}

fn strided(len: usize, shape: &[usize], strides: &[usize]) -> Result<(Sizes, Sizes), Refusal> {
    if shape.len() != strides.len() {
        return Err(Refusal::Failed(format!("{} sizes but {} strides", shape.len(), strides.len())));
    }
    let last = shape.iter().zip(strides).try_fold(0usize, |last, (&size, &stride)| {
        size.saturating_sub(1).checked_mul(stride).and_then(|step| last.checked_add(step))
    });
    let fits = shape.contains(&0) || last.is_some_and(|last| last < len);
    let signed = |sizes: &[usize]| sizes.iter().map(|&size| i64::try_from(size)).collect::<Result<Sizes, _>>();
    match (fits, signed(shape), signed(strides)) {
        (true, Ok(shape), Ok(strides)) => Ok((shape, strides)),
        _ => Err(Refusal::Failed(format!(
            "a tensor of sizes {shape:?} and strides {strides:?} reaches beyond its slice of {len} elements"
        ))),
    }
}
