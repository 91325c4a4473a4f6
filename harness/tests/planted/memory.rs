//! Reading and writing a call's tensors: the only unsafe code here.

use half::{bf16, f16};
use isonorm_kernels::abi::{Dtype, Tensor};

/// Where each index lies, in elements, in row-major order of the indices.
pub fn walk(shape: &[i64], strides: &[i64]) -> Vec<isize> {
    let mut offsets = vec![0];
    for (&size, &stride) in shape.iter().zip(strides) {
        let steps = |&start: &isize| (0..size as isize).map(move |step| start + step * stride as isize);
        offsets = offsets.iter().flat_map(steps).collect();
    }
    offsets
}

/// The elements of a tensor at these offsets.
pub fn read(tensor: &Tensor<'_>, offsets: &[isize]) -> Vec<f64> {
    let limits = limits(tensor);
    let element = |&offset: &isize| {
        let at = address(tensor, offset, limits);
        // SAFETY: `address` stays within the tensor or one element beside it, where these kernels' callers have
        // canaries; elements are aligned to nothing here.
        unsafe {
            match tensor.dtype {
                Dtype::F32 => f64::from(at.cast::<f32>().read_unaligned()),
                Dtype::F64 => at.cast::<f64>().read_unaligned(),
                Dtype::Bf16 => bf16::from_bits(at.cast::<u16>().read_unaligned()).to_f64(),
                Dtype::F16 => f16::from_bits(at.cast::<u16>().read_unaligned()).to_f64(),
            }
        }
    };
    if tensor.is_empty() { Vec::new() } else { offsets.iter().map(element).collect() }
}

/// Writes numbers, which the tensor's type must hold, at offsets.
pub fn write(tensor: &Tensor<'_>, values: impl Iterator<Item = (isize, f64)>) {
    let limits = limits(tensor);
    for (offset, value) in values {
        let at = address(tensor, offset, limits);
        // SAFETY: as in `read`.
        unsafe {
            match tensor.dtype {
                Dtype::F32 => at.cast::<f32>().write_unaligned(value as f32),
                Dtype::F64 => at.cast::<f64>().write_unaligned(value),
                Dtype::Bf16 => at.cast::<u16>().write_unaligned(bf16::from_f64(value).to_bits()),
                Dtype::F16 => at.cast::<u16>().write_unaligned(f16::from_f64(value).to_bits()),
            }
        }
    }
}

/// The first and the last offset that a kernel of the corpus touches: a bug strays by one element, so that it harms
/// nobody but is a stray access still.
fn limits(tensor: &Tensor<'_>) -> (isize, isize) {
    let reach: i64 = tensor.shape.iter().zip(tensor.strides).map(|(&size, &stride)| (size - 1) * stride).sum();
    (-1, reach as isize + 1)
}

fn address(tensor: &Tensor<'_>, offset: isize, (first, last): (isize, isize)) -> *mut u8 {
    tensor.data.wrapping_offset(offset.clamp(first, last) * tensor.dtype.size() as isize)
}
