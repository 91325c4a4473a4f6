//! The two loops that every kernel is made of: a reduction and a map over dense runs.

use std::ops::Range;

use super::memory::{self, Streaming, array, common};
use super::{Isa, Lanes, Load, Real, Store};

/// Terms that one lane adds up before its sum moves on to `f64`.
const BLOCK: usize = 32;

/// How many vectors are in flight: enough to hide the latency of an addition.
const UNROLL: usize = 4;

/// `K` sums over a run: `add` puts the terms of one vector onto the accumulators.
///
/// Each of the [`UNROLL`] accumulators adds up at most [`BLOCK`] vectors; they and their lanes are then combined as
/// a tree, and the blocks in `f64`. So no element passes through more than about 40 roundings in the working
/// precision, however long the run is.
///
/// The limit: one load and `K` additions per vector, at two a cycle, out of the first-level cache; else bandwidth.
#[inline(always)]
pub fn sum<S: Isa, R: Real, L: Load<S, R>, const K: usize>(
    simd: S,
    from: L,
    add: impl Fn(L::Item, [Lanes<S, R>; K]) -> [Lanes<S, R>; K],
) -> [f64; K] {
    sum_beside(simd, from, add, Nothing)
}

/// [`sum`] over one run, and [`map`] over others, in one loop: reading the one goes on while the others are written, where
/// one after the other each would wait for memory by itself. The sums are the same to the last bit.
///
/// The limit: that of both together; bandwidth from the second-level cache on.
///
/// # Panics
/// If the runs differ in length.
#[inline(always)]
pub fn sum_and_map<S: Isa, R: Real, X: Load<S, R> + Copy, L: Load<S, R>, T: Store<S, R>, const K: usize>(
    simd: S,
    summed: X,
    add: impl Fn(X::Item, [Lanes<S, R>; K]) -> [Lanes<S, R>; K],
    (from, to): (L, T),
    compute: impl Fn(L::Item) -> T::Item,
) -> [f64; K] {
    let n = common([summed.extent(), from.extent(), to.extent()]).unwrap_or(0);
    let (lines, streams) = lines::<S, R, T>(&to, n);
    if streams || !S::FUSED {
        let from = memory::Beside { run: from, next: summed };
        map(simd, from, to, compute);
        return sum(simd, summed, add);
    }
    // Whole steps of the sum's loop go beside it.
    let step = UNROLL * R::lanes::<S>();
    let beside = lines.start..lines.start + lines.len() / step * step;
    for range in [0..beside.start, beside.end..n] {
        map_range(simd, range, &from, &to, &compute);
    }
    sum_beside(simd, summed, add, Mapping { range: beside, streams, from, to, compute })
}

/// What is done beside a sum.
trait Beside<S: Isa, R: Real> {
    /// Elements.
    fn len(&self) -> usize;

    /// Whether it writes past the caches.
    fn streams(&self) -> bool;

    /// Does [`UNROLL`] vectors.
    ///
    /// # Safety
    /// `index` plus as many elements is within the length; `STREAMS` only if it [`streams`](Self::streams).
    unsafe fn step<const STREAMS: bool>(&self, simd: S, index: usize);
}

struct Nothing;

impl<S: Isa, R: Real> Beside<S, R> for Nothing {
    #[inline(always)]
    fn len(&self) -> usize {
        0
    }

    #[inline(always)]
    fn streams(&self) -> bool {
        false
    }

    #[inline(always)]
    unsafe fn step<const STREAMS: bool>(&self, _: S, _: usize) {}
}

/// A part of a map: a range within the extents, of cache lines if it streams.
struct Mapping<L, T, F> {
    range: Range<usize>,
    streams: bool,
    from: L,
    to: T,
    compute: F,
}

impl<S: Isa, R: Real, L: Load<S, R>, T: Store<S, R>, F: Fn(L::Item) -> T::Item> Beside<S, R> for Mapping<L, T, F> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.range.len()
    }

    #[inline(always)]
    fn streams(&self) -> bool {
        self.streams
    }

    #[inline(always)]
    unsafe fn step<const STREAMS: bool>(&self, simd: S, index: usize) {
        let index = self.range.start + index;
        // SAFETY: the caller's promise.
        unsafe {
            match T::LINE {
                4 => self.lines::<4, STREAMS, S, R>(simd, index),
                2 => self.lines::<2, STREAMS, S, R>(simd, index),
                _ => self.lines::<1, STREAMS, S, R>(simd, index),
            }
        }
    }
}

impl<L, T, F> Mapping<L, T, F> {
    /// # Safety
    /// As for [`Beside::step`].
    #[inline(always)]
    unsafe fn lines<const K: usize, const STREAMS: bool, S: Isa, R: Real>(&self, simd: S, index: usize)
    where
        L: Load<S, R>,
        T: Store<S, R>,
        F: Fn(L::Item) -> T::Item,
    {
        for line in 0..UNROLL / K {
            // SAFETY: the caller's promise.
            unsafe {
                let index = index + line * K * R::lanes::<S>();
                map_line::<K, STREAMS, S, R, L, T>(simd, index, &self.from, &self.to, &self.compute);
            }
        }
    }
}

#[inline(always)]
fn sum_beside<S: Isa, R: Real, L: Load<S, R>, const K: usize>(
    simd: S,
    from: L,
    add: impl Fn(L::Item, [Lanes<S, R>; K]) -> [Lanes<S, R>; K],
    beside: impl Beside<S, R>,
) -> [f64; K] {
    let lanes = R::lanes::<S>();
    let n = from.extent().unwrap_or(0);
    let zero = Lanes::splat(simd, R::default());
    let mut totals = [0.0; K];
    let mut i = 0;
    while i < n {
        let end = n.min(i + BLOCK * UNROLL * lanes);
        let mut sums = [[zero; K]; UNROLL];
        let both = end.min(beside.len());
        while beside.streams() && i + UNROLL * lanes <= both {
            // SAFETY: the loop's condition.
            unsafe {
                unrolled(simd, &from, i, &add, &mut sums);
                beside.step::<true>(simd, i);
            }
            i += UNROLL * lanes;
        }
        while i + UNROLL * lanes <= both {
            // SAFETY: the loop's condition.
            unsafe {
                unrolled(simd, &from, i, &add, &mut sums);
                beside.step::<false>(simd, i);
            }
            i += UNROLL * lanes;
        }
        while i + UNROLL * lanes <= end {
            // SAFETY: the loop's condition.
            unsafe { unrolled(simd, &from, i, &add, &mut sums) };
            i += UNROLL * lanes;
        }
        while i + lanes <= end {
            // SAFETY: the loop's condition.
            sums[0] = add(unsafe { from.load(simd, i) }, sums[0]);
            i += lanes;
        }
        if i < end {
            let count = end - i;
            // SAFETY: `i + count` is `end`; less than a vector is left.
            let next = add(unsafe { from.load_head(simd, i, count) }, sums[1]);
            for (k, next) in next.into_iter().enumerate() {
                sums[1][k] = next.head_or(count, sums[1][k]);
            }
            i = end;
        }
        for (k, total) in totals.iter_mut().enumerate() {
            *total += ((sums[0][k] + sums[1][k]) + (sums[2][k] + sums[3][k])).sum().to_f64();
        }
    }
    totals
}

/// Adds one vector to each accumulator.
///
/// # Safety
/// `index` plus [`UNROLL`] vectors is within the extent.
#[inline(always)]
unsafe fn unrolled<S: Isa, R: Real, L: Load<S, R>, const K: usize>(
    simd: S,
    from: &L,
    index: usize,
    add: &impl Fn(L::Item, [Lanes<S, R>; K]) -> [Lanes<S, R>; K],
    sums: &mut [[Lanes<S, R>; K]; UNROLL],
) {
    for (u, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *sums = add(unsafe { from.load(simd, index + u * R::lanes::<S>()) }, *sums);
    }
}

/// Computes every element of `to` from the elements of `from` at the same index.
///
/// All of `from` is read at an index before `to` is written there, so they may be the same memory.
///
/// The limit: the loads and the store of each vector in the first-level cache; else bandwidth, of which a streamed
/// store saves the third that reads what is to be overwritten.
#[inline(always)]
pub fn map<S: Isa, R: Real, L: Load<S, R>, T: Store<S, R>>(
    simd: S,
    from: L,
    to: T,
    compute: impl Fn(L::Item) -> T::Item,
) {
    let n = common([from.extent(), to.extent()]).unwrap_or(0);
    let (lines, streams) = lines::<S, R, T>(&to, n);
    for range in [0..lines.start, lines.end..n] {
        map_range(simd, range, &from, &to, &compute);
    }
    match T::LINE {
        4 => map_all::<4, S, R, L, T>(simd, lines, streams, &from, &to, &compute),
        2 => map_all::<2, S, R, L, T>(simd, lines, streams, &from, &to, &compute),
        _ => map_all::<1, S, R, L, T>(simd, lines, streams, &from, &to, &compute),
    }
}

/// The whole lines of an output of `n` elements, and whether they go past the caches.
#[inline(always)]
fn lines<S: Isa, R: Real, T: Store<S, R>>(to: &T, n: usize) -> (Range<usize>, bool) {
    let line = T::LINE * R::lanes::<S>();
    let (first, streams) = match to.streaming() {
        Streaming::From(first) if first < n => (first, true),
        _ => (0, false),
    };
    (first..first + (n - first) / line * line, streams)
}

/// [`map`] for runs of a few vectors: without cache lines, which take longer to find than to write.
#[inline(always)]
pub fn map_short<S: Isa, R: Real, L: Load<S, R>, T: Store<S, R>>(
    simd: S,
    from: L,
    to: T,
    compute: impl Fn(L::Item) -> T::Item,
) {
    let n = common([from.extent(), to.extent()]).unwrap_or(0);
    map_range(simd, 0..n, &from, &to, &compute);
}

/// The elements of a range within the extent.
#[inline(always)]
fn map_range<S: Isa, R: Real, L: Load<S, R>, T: Store<S, R>>(
    simd: S,
    range: Range<usize>,
    from: &L,
    to: &T,
    compute: &impl Fn(L::Item) -> T::Item,
) {
    let (lanes, n) = (R::lanes::<S>(), range.end);
    let mut i = range.start;
    while i + lanes <= n {
        // SAFETY: the loop's condition; the callers made sure that both extents are at least `n`.
        unsafe { to.store(simd, i, compute(from.load(simd, i))) };
        i += lanes;
    }
    if i < n {
        // SAFETY: as above; less than a vector is left.
        unsafe { to.store_head(simd, i, n - i, compute(from.load_head(simd, i, n - i))) };
    }
}

/// The whole lines of a map.
#[inline(always)]
fn map_all<const K: usize, S: Isa, R: Real, L: Load<S, R>, T: Store<S, R>>(
    simd: S,
    lines: Range<usize>,
    streams: bool,
    from: &L,
    to: &T,
    compute: &impl Fn(L::Item) -> T::Item,
) {
    if streams {
        map_lines::<K, true, S, R, L, T>(simd, lines, from, to, compute);
    } else {
        map_lines::<K, false, S, R, L, T>(simd, lines, from, to, compute);
    }
}

/// Whole lines of `K` vectors within the extents: half-precision vectors are packed together, and what is written past
/// the caches goes by cache lines.
#[inline(always)]
fn map_lines<const K: usize, const STREAMS: bool, S: Isa, R: Real, L: Load<S, R>, T: Store<S, R>>(
    simd: S,
    lines: Range<usize>,
    from: &L,
    to: &T,
    compute: &impl Fn(L::Item) -> T::Item,
) {
    let mut i = lines.start;
    while i < lines.end {
        // SAFETY: the lines are within both extents, and cache lines if they are streamed.
        unsafe { map_line::<K, STREAMS, S, R, L, T>(simd, i, from, to, compute) };
        i += K * R::lanes::<S>();
    }
}

/// A line of `K` vectors.
///
/// # Safety
/// It is within the extents, and a cache line of `to` if it is streamed.
#[inline(always)]
unsafe fn map_line<const K: usize, const STREAMS: bool, S: Isa, R: Real, L: Load<S, R>, T: Store<S, R>>(
    simd: S,
    index: usize,
    from: &L,
    to: &T,
    compute: &impl Fn(L::Item) -> T::Item,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let items = array(
            #[inline(always)]
            |k| compute(from.load(simd, index + k * R::lanes::<S>())),
        );
        if STREAMS { to.stream::<K>(simd, index, items) } else { to.store_all::<K>(simd, index, items) }
    }
}
