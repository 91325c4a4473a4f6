//! Tensors as rows: from raw pointers, sizes and strides to dense runs that the stages take.
//!
//! A tensor's axes are divided in two: the outer ones number the rows, the inner ones lie along a row. A row whose
//! elements are dense is used where it lies; any other is gathered into a buffer, and scattered back after.

use std::marker::PhantomData;

use crate::abi::{Refusal, Tensor};
use crate::simd::{Element, Sink, Source};

/// An axis: its size, and its step in elements.
type Axis = (usize, usize);

/// A tensor's memory, checked once, as rows.
struct View<E> {
    start: *mut E,
    outer: Vec<Axis>,
    inner: Vec<Axis>,
    width: usize,
}

impl<E: Element> View<E> {
    fn new(
        name: &str,
        tensor: &Tensor<'_>,
        shape: &[i64],
        strides: &[i64],
        outer: &[usize],
        inner: &[usize],
    ) -> Result<Self, Refusal> {
        if tensor.dtype != E::DTYPE {
            return Err(Refusal::Failed(format!("`{name}` has dtype {}, expected {}", tensor.dtype, E::DTYPE)));
        }
        let mut axes = Vec::with_capacity(shape.len());
        let (mut count, mut reach) = (1usize, 0usize);
        for (&size, &stride) in shape.iter().zip(strides) {
            let negative = || Refusal::Unsupported(format!("`{name}` has a negative size or stride"));
            let size = usize::try_from(size).map_err(|_| negative())?;
            let stride = usize::try_from(stride).map_err(|_| negative())?;
            let sum = size.saturating_sub(1).checked_mul(stride).and_then(|step| reach.checked_add(step));
            let (Some(sum), Some(product)) = (sum, count.checked_mul(size)) else {
                return Err(Refusal::Failed(format!("`{name}` is larger than the address space")));
            };
            (reach, count) = (sum, product);
            axes.push((size, stride));
        }
        if count > 0 {
            if reach >= isize::MAX as usize / size_of::<E>() || count >= isize::MAX as usize / size_of::<E>() {
                return Err(Refusal::Failed(format!("`{name}` is larger than the address space")));
            }
            if tensor.data.is_null() || !tensor.data.cast::<E>().is_aligned() {
                return Err(Refusal::Failed(format!("the address of `{name}` is null or not aligned to its elements")));
            }
        }
        let pick = |which: &[usize]| merged(which.iter().map(|&axis| axes[axis]));
        Ok(View {
            start: tensor.data.cast(),
            outer: pick(outer),
            inner: pick(inner),
            width: inner.iter().map(|&axis| axes[axis].0).product(),
        })
    }

    fn is_dense(&self) -> bool {
        matches!(self.inner[..], [] | [(_, 1)])
    }

    fn row_start(&self, row: usize) -> *mut E {
        let mut offset = 0;
        let mut rest = row;
        for &(size, stride) in self.outer.iter().skip(1).rev() {
            offset += rest % size * stride;
            rest /= size;
        }
        offset += self.outer.first().map_or(0, |&(_, stride)| rest * stride);
        self.start.wrapping_add(offset)
    }

    /// Calls `visit` for each run of a row along its last axis: the place in the row, the address of the first element,
    /// how many there are, and the step between them.
    fn for_each_run(&self, row: usize, mut visit: impl FnMut(usize, *mut E, usize, usize)) {
        let start = self.row_start(row);
        let Some((&(size, stride), above)) = self.inner.split_last() else {
            return visit(0, start, 1, 1);
        };
        for first in (0..self.width).step_by(size) {
            let mut offset = 0;
            let mut rest = first / size;
            for &(size, stride) in above.iter().rev() {
                offset += rest % size * stride;
                rest /= size;
            }
            visit(first, start.wrapping_add(offset), size, stride);
        }
    }
}

/// Drops axes of size 1 and joins neighbours that are steps of one longer axis.
fn merged(axes: impl Iterator<Item = Axis>) -> Vec<Axis> {
    let mut result: Vec<Axis> = Vec::new();
    for (size, stride) in axes.filter(|&(size, _)| size != 1) {
        match result.last_mut() {
            Some(last) if last.1 == size * stride => *last = (last.0 * size, stride),
            _ => result.push((size, stride)),
        }
    }
    result
}

/// A tensor to read, as rows.
pub struct Input<'a, E> {
    view: View<E>,
    _memory: PhantomData<&'a E>,
}

/// A tensor to write, as rows.
pub struct Output<'a, E> {
    view: View<E>,
    _memory: PhantomData<&'a mut E>,
}

// SAFETY: an input is only read; where it is an output's memory too, each row is touched by one thread only: see
// `Output`.
unsafe impl<E: Sync> Sync for Input<'_, E> {}
// SAFETY: rows do not overlap (`Output::new` made sure), and the families give each row to one thread.
unsafe impl<E: Send> Sync for Output<'_, E> {}

impl<'a, E: Element> Input<'a, E> {
    /// The rows that `outer` axes number and `inner` axes lie along. Sizes and strides are the tensor's, or say the same of
    /// its memory in other words (an axis divided in two).
    ///
    /// # Errors
    /// Another dtype; negative strides; an address that is null or not aligned.
    pub fn new(
        name: &str,
        tensor: &Tensor<'a>,
        shape: &[i64],
        strides: &[i64],
        outer: &[usize],
        inner: &[usize],
    ) -> Result<Self, Refusal> {
        Ok(Input { view: View::new(name, tensor, shape, strides, outer, inner)?, _memory: PhantomData })
    }

    /// A row where it lies, if it is dense.
    pub fn lying(&self, row: usize) -> Option<Source<'a, E>> {
        // SAFETY: `Call::from_raw` vouches for all that sizes and strides reach.
        self.view.is_dense().then(|| unsafe { Source::from_raw(self.view.row_start(row), self.view.width) })
    }

    /// Reads rows, one at a time.
    pub fn reader(&self) -> Reader<'_, E> {
        Reader { view: &self.view, buffer: Vec::new() }
    }
}

impl<'a, E: Element> Output<'a, E> {
    /// The rows that `outer` axes number and `inner` axes lie along. Sizes and strides are the tensor's, or say the same of
    /// its memory in other words (an axis divided in two).
    ///
    /// # Errors
    /// As for [`Input::new`]; also if elements overlap.
    pub fn new(
        name: &str,
        tensor: &Tensor<'a>,
        shape: &[i64],
        strides: &[i64],
        outer: &[usize],
        inner: &[usize],
    ) -> Result<Self, Refusal> {
        let view = View::new(name, tensor, shape, strides, outer, inner)?;
        let mut axes: Vec<Axis> = view.outer.iter().chain(&view.inner).copied().collect();
        if axes.iter().any(|&(size, _)| size == 0) {
            axes.clear();
        }
        axes.sort_by_key(|&(_, stride)| stride);
        let mut reach = 0;
        for (size, stride) in axes {
            if stride <= reach && size > 1 {
                return Err(Refusal::Unsupported(format!("elements of `{name}` overlap")));
            }
            reach += size.saturating_sub(1) * stride;
        }
        Ok(Output { view, _memory: PhantomData })
    }

    /// Writes rows, one at a time.
    pub fn writer(&self) -> Writer<'_, E> {
        Writer { view: &self.view, buffer: Vec::new() }
    }
}

/// Gives rows to read.
pub struct Reader<'a, E> {
    view: &'a View<E>,
    buffer: Vec<E>,
}

impl<'a, E: Element> Reader<'a, E> {
    /// A row.
    #[inline(always)]
    pub fn row(&mut self, row: usize) -> Source<'_, E> {
        if self.view.is_dense() {
            // SAFETY: `Call::from_raw` vouches for all that sizes and strides reach.
            return unsafe { Source::from_raw(self.view.row_start(row), self.view.width) };
        }
        self.gather(row)
    }

    #[inline(never)]
    fn gather(&mut self, row: usize) -> Source<'_, E> {
        self.buffer.resize(self.view.width, E::default());
        let buffer = &mut self.buffer[..];
        self.view.for_each_run(row, |at, first, count, step| {
            let to = &mut buffer[at..at + count];
            // SAFETY: as above; the buffer is memory of its own; an expanded element is read several times.
            unsafe {
                if step == 1 {
                    first.copy_to_nonoverlapping(to.as_mut_ptr(), count);
                } else {
                    to.iter_mut().enumerate().for_each(|(i, to)| *to = first.add(i * step).read());
                }
            }
        });
        Source::from(&self.buffer[..])
    }
}

/// Takes rows to write.
pub struct Writer<'a, E> {
    view: &'a View<E>,
    buffer: Vec<E>,
}

impl<E: Element> Writer<'_, E> {
    /// A row: what is written to it arrives with [`commit`](Self::commit).
    #[inline(always)]
    pub fn row(&mut self, row: usize) -> Sink<'_, E> {
        if self.view.is_dense() {
            // SAFETY: `Call::from_raw` vouches for all that sizes and strides reach; this thread owns the row.
            return unsafe { Sink::from_raw(self.view.row_start(row), self.view.width) };
        }
        self.buffer.resize(self.view.width, E::default());
        Sink::from(&mut self.buffer[..])
    }

    /// Puts a written row in its place.
    #[inline(always)]
    pub fn commit(&mut self, row: usize) {
        if !self.view.is_dense() {
            self.scatter(row);
        }
    }

    #[inline(never)]
    fn scatter(&mut self, row: usize) {
        let buffer = &self.buffer[..];
        self.view.for_each_run(row, |at, first, count, step| {
            let from = &buffer[at..at + count];
            // SAFETY: as for `row`; the buffer is memory of its own.
            unsafe {
                if step == 1 {
                    first.copy_from_nonoverlapping(from.as_ptr(), count);
                } else {
                    from.iter().enumerate().for_each(|(i, &from)| first.add(i * step).write(from));
                }
            }
        });
    }
}

impl<E: Element> Writer<'_, E> {
    /// Writes the only row of a tensor.
    ///
    /// # Panics
    /// If there are fewer values than the row has elements.
    pub fn put(&mut self, values: impl Iterator<Item = E>) {
        self.buffer = values.collect();
        assert_eq!(self.buffer.len(), self.view.width);
        self.scatter(0);
    }
}
