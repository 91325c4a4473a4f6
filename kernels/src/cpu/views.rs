//! Tensors as rows: from raw pointers, sizes and strides to dense runs that the stages take.
//!
//! A tensor's axes are divided in two: the outer ones number the rows, the inner ones lie along a row. A row whose
//! elements are dense is used where it lies; any other is gathered into a buffer, and scattered back after.

use std::marker::PhantomData;
use std::ops::Range;

use smallvec::SmallVec;

use crate::abi::{Refusal, Tensor};
use crate::simd::{Element, Sink, Source, fence};

/// An axis: its size, and its step in elements.
type Axis = (usize, usize);

/// As many as most tensors have, once they are joined, without an allocation: small calls are made of such costs, and of
/// those of moving a view.
type Axes = SmallVec<[Axis; 2]>;

/// A tensor's memory, checked once, as rows.
struct View<E> {
    start: *mut E,
    /// Elements from the first to behind the last.
    reach: usize,
    outer: Axes,
    inner: Axes,
    width: usize,
    /// Whether the elements of a row are dense.
    is_dense: bool,
    /// Elements from one row to the next, if it is the same for all.
    step: Option<usize>,
}

impl<E: Element> View<E> {
    fn new(
        name: &str,
        tensor: &Tensor<'_>,
        axes: impl IntoIterator<Item = (i64, i64)>,
        outer_axes: usize,
    ) -> Result<Self, Refusal> {
        if tensor.dtype != E::DTYPE {
            return Err(Refusal::Failed(format!("`{name}` has dtype {}, expected {}", tensor.dtype, E::DTYPE)));
        }
        let (mut outer, mut inner) = (Axes::new(), Axes::new());
        let (mut count, mut width, mut reach) = (1usize, 1usize, 0usize);
        for (place, (size, stride)) in axes.into_iter().enumerate() {
            let negative = || Refusal::Unsupported(format!("`{name}` has a negative size or stride"));
            let size = usize::try_from(size).map_err(|_| negative())?;
            let stride = usize::try_from(stride).map_err(|_| negative())?;
            let sum = size.saturating_sub(1).checked_mul(stride).and_then(|step| reach.checked_add(step));
            let (Some(sum), Some(product)) = (sum, count.checked_mul(size)) else {
                return Err(Refusal::Failed(format!("`{name}` is larger than the address space")));
            };
            (reach, count) = (sum, product);
            if place < outer_axes {
                join(&mut outer, (size, stride));
            } else {
                join(&mut inner, (size, stride));
                width = width.saturating_mul(size);
            }
        }
        if count > 0 {
            if reach >= isize::MAX as usize / size_of::<E>() || count >= isize::MAX as usize / size_of::<E>() {
                return Err(Refusal::Failed(format!("`{name}` is larger than the address space")));
            }
            if tensor.data.is_null() || !tensor.data.cast::<E>().is_aligned() {
                return Err(Refusal::Failed(format!("the address of `{name}` is null or not aligned to its elements")));
            }
        }
        Ok(View {
            start: tensor.data.cast(),
            reach: if count > 0 { reach + 1 } else { 0 },
            width,
            is_dense: matches!(inner[..], [] | [(_, 1)]),
            step: match outer[..] {
                [] => Some(0),
                [(_, stride)] => Some(stride),
                _ => None,
            },
            outer,
            inner,
        })
    }

    /// Whether no two elements are the same memory.
    fn is_free_of_overlaps(&self) -> bool {
        if self.is_dense && (self.outer.is_empty() || self.step.is_some_and(|step| step >= self.width)) {
            return true;
        }
        let mut axes: Axes = self.outer.iter().chain(&self.inner).copied().collect();
        if axes.iter().any(|&(size, _)| size == 0) {
            axes.clear();
        }
        axes.sort_by_key(|&(_, stride)| stride);
        let mut reach = 0;
        axes.into_iter().all(|(size, stride)| {
            let is_beyond = stride > reach;
            reach += (size - 1) * stride;
            is_beyond
        })
    }

    #[inline(always)]
    fn is_dense(&self) -> bool {
        self.is_dense
    }

    #[inline(always)]
    fn row_start(&self, row: usize) -> *mut E {
        self.start.wrapping_add(match self.step {
            Some(step) => row * step,
            None => self.offset(row),
        })
    }

    /// Elements from the first to the first of a row.
    fn offset(&self, row: usize) -> usize {
        let (mut offset, mut rest) = (0, row);
        for &(size, stride) in self.outer.iter().skip(1).rev() {
            offset += rest % size * stride;
            rest /= size;
        }
        offset + self.outer.first().map_or(0, |&(_, stride)| rest * stride)
    }

    /// How many rows to take together, from `row` on and before `end`: more than one if neighbouring rows lie in the
    /// same cache lines.
    fn tile(&self, row: usize, end: usize) -> usize {
        let Some(&(size, stride)) = self.outer.last() else { return 1 };
        let near = CACHE_LINE / (stride * size_of::<E>()).max(1);
        let fitting = TILE_BYTES / (self.width * size_of::<E>()).max(1);
        let is_run = matches!(self.inner.last(), Some((_, 1)));
        if is_run { 1 } else { (size - row % size).min(end - row).min(near).min(fitting).max(1) }
    }

    /// Elements from one row to the next in a buffer: an odd number of cache lines, so that the rows of a tile do not
    /// compete for the same places of a cache.
    fn pitch(&self) -> usize {
        ((self.width * size_of::<E>()).div_ceil(CACHE_LINE) | 1) * CACHE_LINE / size_of::<E>()
    }

    /// Calls `visit` for each element of a tile of rows: its address, and its place in the buffer. In the order of
    /// memory, so that a cache line is touched once.
    #[inline(always)]
    fn for_each(&self, row: usize, rows: usize, mut visit: impl FnMut(*mut E, usize)) {
        let start = self.row_start(row);
        let mut step = 1;
        // Size, step in memory, step in the buffer.
        let mut axes: Vec<[usize; 3]> = Vec::with_capacity(self.inner.len() + 3);
        for &(size, stride) in self.inner.iter().rev() {
            axes.push([size, stride, step]);
            step *= size;
        }
        axes.push([rows, self.outer.last().map_or(0, |&(_, stride)| stride), self.pitch()]);
        axes.retain(|&[size, ..]| size > 1);
        axes.sort_by_key(|&[_, stride, _]| stride);
        axes.resize(axes.len().max(2), [1, 0, 0]);
        let ([near, far], above) = axes.split_first_chunk().unwrap_or((&[[1, 0, 0]; 2], &[]));
        for block in 0..above.iter().map(|&[size, ..]| size).product() {
            let (mut offset, mut place, mut rest) = (0, 0, block);
            for &[size, stride, step] in above {
                offset += rest % size * stride;
                place += rest % size * step;
                rest /= size;
            }
            for j in 0..far[0] {
                let (offset, place) = (offset + j * far[1], place + j * far[2]);
                for i in 0..near[0] {
                    visit(start.wrapping_add(offset + i * near[1]), place + i * near[2]);
                }
            }
        }
    }

    /// Calls `visit` for each dense run of one row, with its address, its place in the row and its length; answers
    /// `false`, and does nothing, if the row's last axis is not dense.
    fn for_each_run(&self, row: usize, mut visit: impl FnMut(*mut E, usize, usize)) -> bool {
        let Some((&(size, 1), above)) = self.inner.split_last() else { return false };
        let start = self.row_start(row);
        for place in (0..self.width).step_by(size.max(1)) {
            let (mut offset, mut rest) = (0, place / size);
            for &(size, stride) in above.iter().rev() {
                offset += rest % size * stride;
                rest /= size;
            }
            visit(start.wrapping_add(offset), place, size);
        }
        true
    }
}

/// Bytes that come from memory together.
pub const CACHE_LINE: usize = 64;

/// The most bytes of rows that are gathered together: they should stay in a cache.
const TILE_BYTES: usize = 1 << 23;

/// Adds an axis to others: to the last, if that is made of steps of the new one. One of size 1 is none.
#[inline(always)]
fn join(axes: &mut Axes, (size, stride): Axis) {
    match axes.last_mut() {
        _ if size == 1 => {}
        Some(last) if last.1 == size * stride => *last = (last.0 * size, stride),
        _ => axes.push((size, stride)),
    }
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
    /// The rows that the first `outer` axes number and the others lie along. The axes, sizes and strides, are the tensor's,
    /// or say the same of its memory in other words (in another order, one divided in two).
    ///
    /// # Errors
    /// Another dtype; negative strides; an address that is null or not aligned.
    pub fn new(
        name: &str,
        tensor: &Tensor<'a>,
        axes: impl IntoIterator<Item = (i64, i64)>,
        outer: usize,
    ) -> Result<Self, Refusal> {
        Ok(Input { view: View::new(name, tensor, axes, outer)?, _memory: PhantomData })
    }

    /// All elements of a tensor as one run, if they lie like that at an address that will do. What [`new`](Self::new) and
    /// [`lying`](Self::lying) answer, in a fraction of the time: most parameters are dense.
    pub fn dense(tensor: &Tensor<'a>) -> Option<Source<'a, E>> {
        let mut count = 1usize;
        for (size, stride) in tensor.axes().rev() {
            if size != 1 && usize::try_from(stride) != Ok(count) {
                return None;
            }
            count = count.checked_mul(usize::try_from(size).ok()?)?;
        }
        let is_sound = tensor.dtype == E::DTYPE
            && (1..isize::MAX as usize / size_of::<E>()).contains(&count)
            && !tensor.data.is_null()
            && tensor.data.cast::<E>().is_aligned();
        // SAFETY: `Call::from_raw` vouches for all that sizes and strides reach.
        is_sound.then(|| unsafe { Source::from_raw(tensor.data.cast(), count) })
    }

    /// A row where it lies, if it is dense.
    pub fn lying(&self, row: usize) -> Option<Source<'a, E>> {
        // SAFETY: `Call::from_raw` vouches for all that sizes and strides reach.
        self.view.is_dense().then(|| unsafe { Source::from_raw(self.view.row_start(row), self.view.width) })
    }

    /// `len` elements, dense from the one `offset` elements behind the first.
    ///
    /// # Panics
    /// If they are not within the tensor.
    #[inline(always)]
    pub fn run(&self, offset: usize, len: usize) -> Source<'a, E> {
        assert!(offset + len <= self.view.reach);
        // SAFETY: `Call::from_raw` vouches for all that sizes and strides reach; just checked.
        unsafe { Source::from_raw(self.view.start.wrapping_add(offset), len) }
    }

    /// Reads rows before `end`.
    pub fn reader(&self, end: usize) -> Reader<'_, E> {
        Reader { view: &self.view, end, tile: 0..0, buffer: Vec::new() }
    }
}

impl<'a, E: Element> Output<'a, E> {
    /// The rows that the first `outer` axes number and the others lie along; axes as for [`Input::new`].
    ///
    /// # Errors
    /// As for [`Input::new`]; also if elements overlap.
    pub fn new(
        name: &str,
        tensor: &Tensor<'a>,
        axes: impl IntoIterator<Item = (i64, i64)>,
        outer: usize,
    ) -> Result<Self, Refusal> {
        let view = View::new(name, tensor, axes, outer)?;
        if view.is_free_of_overlaps() {
            Ok(Output { view, _memory: PhantomData })
        } else {
            Err(Refusal::Unsupported(format!("elements of `{name}` overlap")))
        }
    }

    /// `len` elements, dense from the one `offset` elements behind the first.
    ///
    /// # Panics
    /// If they are not within the tensor.
    #[inline(always)]
    pub fn run(&self, offset: usize, len: usize) -> Sink<'_, E> {
        assert!(offset + len <= self.view.reach);
        // SAFETY: `Call::from_raw` vouches for all that sizes and strides reach; just checked. The families give each
        // element to one thread.
        unsafe { Sink::from_raw(self.view.start.wrapping_add(offset), len) }
    }

    /// Writes rows before `end`, one after the other; `streams` says whether past the caches (see [`Traffic`]).
    pub fn writer(&self, end: usize, streams: bool) -> Writer<'_, E> {
        Writer { view: &self.view, end, streams, tile: 0..0, buffer: Vec::new() }
    }
}

/// A writer of rows before `end` for each output; `streams` as [`Traffic`] has it.
pub fn writers<'v, E: Element, const M: usize>(
    outputs: &'v [Output<'_, E>; M],
    end: usize,
    streams: [bool; M],
) -> [Writer<'v, E>; M] {
    std::array::from_fn(|i| outputs[i].writer(end, streams[i]))
}

/// Bytes of all tensors of a call from which on outputs are written past the caches. On the machines that were
/// measured (1 MiB of second-level cache a core, 32 MiB of third-level cache shared with others) that is faster for one
/// thread from 9 MiB on, twice as fast at 12, and for two threads from 14 on; below, whoever reads the output next should find
/// it in a cache.
const STREAMED_BYTES: usize = 12 << 20;

/// Bytes of all tensors of a call from which on none of them is expected in a cache, not even in part.
const MEMORY_BYTES: usize = 64 << 20;

/// How the tensors of a call go through the caches.
#[derive(Clone, Copy)]
pub struct Traffic<const M: usize> {
    /// Which outputs to write past the caches: those of a large call, unless they are the memory of an input, which is in
    /// the caches already.
    pub streams: [bool; M],
    /// Whether inputs come from memory.
    pub is_from_memory: bool,
}

impl<const M: usize> Traffic<M> {
    /// Of these tensors.
    pub fn new<E, const N: usize>(inputs: [&Input<'_, E>; N], outputs: [&Output<'_, E>; M]) -> Self {
        let range = |view: &View<E>| (view.start.addr(), view.start.addr() + view.reach * size_of::<E>());
        let inputs = inputs.map(|input| range(&input.view));
        let outputs = outputs.map(|output| range(&output.view));
        let total: usize = inputs.iter().chain(&outputs).map(|(start, end)| end - start).sum();
        let apart = |(start, end)| inputs.iter().all(|&(from, to)| to <= start || end <= from);
        Traffic {
            streams: outputs.map(|output| total > STREAMED_BYTES && apart(output)),
            is_from_memory: total > MEMORY_BYTES,
        }
    }
}

/// Gives rows to read.
pub struct Reader<'a, E> {
    view: &'a View<E>,
    end: usize,
    /// The rows in the buffer.
    tile: Range<usize>,
    buffer: Vec<E>,
}

impl<'a, E: Element> Reader<'a, E> {
    /// How many rows, up to `most`, can be had together from `row` on.
    #[inline(always)]
    pub fn together(&mut self, row: usize, most: usize) -> usize {
        if self.view.is_dense() {
            return most;
        }
        if !self.tile.contains(&row) {
            self.gather(row);
        }
        most.min(self.tile.end - row)
    }

    /// The rows that can be had together with the one that [`together`](Self::together) was asked for last.
    #[inline(always)]
    pub fn rows(&self) -> Together<'_, E> {
        Together { view: self.view, first: self.tile.start, buffer: &self.buffer }
    }

    /// A row.
    #[inline(always)]
    pub fn row(&mut self, row: usize) -> Source<'_, E> {
        self.together(row, 1);
        self.rows().row(row)
    }

    #[inline(never)]
    fn gather(&mut self, row: usize) {
        let view = self.view;
        let rows = view.tile(row, self.end);
        self.tile = row..row + rows;
        self.buffer.resize(rows * view.pitch(), E::default());
        let buffer = &mut self.buffer[..];
        // SAFETY: as above; the buffer is memory of its own.
        let copy = |first: *mut E, place: usize, count| unsafe {
            first.copy_to_nonoverlapping(buffer[place..place + count].as_mut_ptr(), count);
        };
        if rows > 1 || !view.for_each_run(row, copy) {
            // SAFETY: as above; an expanded element is read several times.
            view.for_each(row, rows, |element, place| buffer[place] = unsafe { element.read() });
        }
    }
}

/// Rows to read, where they lie or gathered.
#[derive(Clone, Copy)]
pub struct Together<'a, E> {
    view: &'a View<E>,
    first: usize,
    buffer: &'a [E],
}

impl<'a, E: Element> Together<'a, E> {
    /// One of them.
    #[inline(always)]
    pub fn row(self, row: usize) -> Source<'a, E> {
        if self.view.is_dense() {
            // SAFETY: `Call::from_raw` vouches for all that sizes and strides reach.
            return unsafe { Source::from_raw(self.view.row_start(row), self.view.width) };
        }
        Source::from(&self.buffer[(row - self.first) * self.view.pitch()..][..self.view.width])
    }
}

/// Takes rows to write. Before it is gone, other threads must not be told that they are written.
pub struct Writer<'a, E> {
    view: &'a View<E>,
    end: usize,
    streams: bool,
    /// The rows in the buffer.
    tile: Range<usize>,
    buffer: Vec<E>,
}

impl<E: Element> Writer<'_, E> {
    /// How many rows, up to `most`, can be had together from `row` on.
    #[inline(always)]
    pub fn together(&mut self, row: usize, most: usize) -> usize {
        if self.view.is_dense() {
            return most;
        }
        if !self.tile.contains(&row) {
            self.tile = row..row + self.view.tile(row, self.end);
            self.buffer.resize(self.tile.len() * self.view.pitch(), E::default());
        }
        most.min(self.tile.end - row)
    }

    /// A row: what is written to it arrives when it has been committed, and the rows gathered with it too.
    #[inline(always)]
    pub fn row(&mut self, row: usize) -> Sink<'_, E> {
        self.together(row, 1);
        let [row] = self.neighbours(row);
        row
    }

    /// Neighbouring rows: what is written to them arrives when the last has been committed, and the rows gathered with it
    /// too.
    ///
    /// # Panics
    /// If [`together`](Self::together) did not give so many.
    #[inline(always)]
    pub fn neighbours<const R: usize>(&mut self, row: usize) -> [Sink<'_, E>; R] {
        let (view, width) = (self.view, self.view.width);
        let mut rows = [const { Sink::NONE }; R];
        if view.is_dense() {
            for (i, sink) in rows.iter_mut().enumerate() {
                // SAFETY: `Call::from_raw` vouches for all that sizes and strides reach; this thread owns the rows.
                *sink = unsafe { Sink::from_raw(view.row_start(row + i), width) }.streaming(self.streams);
            }
        } else {
            let buffer = &mut self.buffer[(row - self.tile.start) * view.pitch()..];
            for (sink, buffer) in rows.iter_mut().zip(buffer.chunks_mut(view.pitch())) {
                *sink = Sink::from(&mut buffer[..width]);
            }
        }
        rows
    }

    /// A row that has been written, and not yet committed.
    ///
    /// # Panics
    /// As for [`neighbours`](Self::neighbours).
    #[inline(always)]
    pub fn written(&self, row: usize) -> Source<'_, E> {
        Together { view: self.view, first: self.tile.start, buffer: &self.buffer }.row(row)
    }

    /// Says that a row is complete.
    #[inline(always)]
    pub fn commit(&mut self, row: usize) {
        if row + 1 == self.tile.end && !self.view.is_dense() {
            self.scatter();
        }
    }

    #[inline(never)]
    fn scatter(&mut self) {
        let (view, buffer) = (self.view, &self.buffer[..]);
        // SAFETY: as for `row`; the buffer is memory of its own.
        let copy = |first: *mut E, place: usize, count| unsafe {
            first.copy_from_nonoverlapping(buffer[place..place + count].as_ptr(), count);
        };
        if self.tile.len() > 1 || !view.for_each_run(self.tile.start, copy) {
            // SAFETY: as for `row`.
            view.for_each(self.tile.start, self.tile.len(), |element, place| unsafe { element.write(buffer[place]) });
        }
    }
}

impl<E> Drop for Writer<'_, E> {
    fn drop(&mut self) {
        if self.streams {
            fence();
        }
    }
}
