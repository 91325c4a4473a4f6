//! The two loops that every kernel is made of: a reduction and a map over dense runs.

use std::ops::Range;

use super::load::{array, common};
use super::store::{Discard, Streaming};
use super::{Fetch, Isa, Lanes, Load, Real, Store};

/// Terms that one lane adds up before its sum moves on to `f64`.
const BLOCK: usize = 32;

/// How many vectors are in flight: enough to hide the latency of an addition.
const UNROLL: usize = 4;

/// `K` sums over a run: `add` puts the terms of one vector onto the accumulators.
///
/// Each lane of the [`UNROLL`] accumulators adds up at most [`BLOCK`] terms; they and their lanes are then combined as
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
    let nothing = Lanes::splat(simd, R::default());
    map_and_sum(
        simd,
        from,
        Discard,
        #[inline(always)]
        |item, sums| (nothing, add(item, sums)),
    )
}

/// [`map`] and [`sum`] in one: `compute` also puts the terms of each vector onto the accumulators. What is written is to be
/// read again: it stays in the caches.
#[inline(always)]
pub fn map_and_sum<S: Isa, R: Real, L: Load<S, R>, T: Store<S, R>, const K: usize>(
    simd: S,
    from: L,
    to: T,
    compute: impl Fn(L::Item, [Lanes<S, R>; K]) -> (T::Item, [Lanes<S, R>; K]),
) -> [f64; K] {
    let lanes = R::lanes::<S>();
    let n = common(from.extent(), to.extent()).unwrap_or(0);
    let zero = Lanes::splat(simd, R::default());
    let mut totals = [0.0; K];
    let mut i = 0;
    while i < n {
        let end = n.min(i + BLOCK / L::TERMS * UNROLL * lanes);
        let mut sums = [[zero; K]; UNROLL];
        while i + UNROLL * lanes <= end {
            // SAFETY: the loop's condition; both extents are at least `n`.
            let loaded: [L::Item; UNROLL] = unsafe { from.load_all(simd, i) };
            let items = array::<_, UNROLL>(
                #[inline(always)]
                |k| {
                    let (item, next) = compute(loaded[k], sums[k]);
                    sums[k] = next;
                    item
                },
            );
            // SAFETY: as above.
            unsafe { to.store_all(simd, i, items) };
            i += UNROLL * lanes;
        }
        while i + lanes <= end {
            // SAFETY: as above.
            let (item, next) = compute(unsafe { from.load(simd, i) }, sums[0]);
            // SAFETY: as above.
            unsafe { to.store(simd, i, item) };
            (sums[0], i) = (next, i + lanes);
        }
        if i < end {
            let count = end - i;
            // SAFETY: `i + count` is `end`; less than a vector is left.
            let (item, next) = compute(unsafe { from.load_head(simd, i, count) }, sums[1]);
            // SAFETY: as above.
            unsafe { to.store_head(simd, i, count, item) };
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
    map_and_fetch(simd, from, to, compute, ());
}

/// [`map`] that asks for what is at the same places of `next`, to be read after, if `to` is written past the caches:
/// then reading goes on while it is written.
#[inline(always)]
pub fn map_and_fetch<S: Isa, R: Real, L: Load<S, R>, T: Store<S, R>, F: Fetch>(
    simd: S,
    from: L,
    to: T,
    compute: impl Fn(L::Item) -> T::Item,
    next: F,
) {
    let n = common(from.extent(), to.extent()).unwrap_or(0);
    let (lines, streams) = if F::STREAMS { lines::<S, R, T>(&to, n) } else { (whole_lines::<S, R, T>(0, n), false) };
    for range in [0..lines.start, lines.end..n] {
        map_range(simd, range, &from, &to, &compute);
    }
    match T::LINE {
        4 => map_all::<4, S, R, L, T, F>(simd, lines, streams, &from, &to, &compute, next),
        2 => map_all::<2, S, R, L, T, F>(simd, lines, streams, &from, &to, &compute, next),
        _ => map_all::<1, S, R, L, T, F>(simd, lines, streams, &from, &to, &compute, next),
    }
}

/// The whole lines of an output of `n` elements, and whether they go past the caches.
#[inline(always)]
fn lines<S: Isa, R: Real, T: Store<S, R>>(to: &T, n: usize) -> (Range<usize>, bool) {
    let (first, streams) = match to.streaming() {
        Streaming::From(first) if first < n => (first, true),
        _ => (0, false),
    };
    (whole_lines::<S, R, T>(first, n), streams)
}

/// As many lines as there are between two elements.
#[inline(always)]
fn whole_lines<S: Isa, R: Real, T: Store<S, R>>(first: usize, n: usize) -> Range<usize> {
    let line = T::LINE * R::lanes::<S>();
    first..first + (n - first) / line * line
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

/// The whole lines of a map: half-precision vectors are packed together, and what is written past the caches goes by
/// cache lines.
#[inline(always)]
fn map_all<const K: usize, S: Isa, R: Real, L: Load<S, R>, T: Store<S, R>, F: Fetch>(
    simd: S,
    lines: Range<usize>,
    streams: bool,
    from: &L,
    to: &T,
    compute: &impl Fn(L::Item) -> T::Item,
    next: F,
) {
    let step = K * R::lanes::<S>();
    let mut i = lines.start;
    let mut soon = i;
    while F::STREAMS && streams && i < lines.end {
        soon = next.fetch(soon) + step;
        // SAFETY: the lines are within both extents, and cache lines of `to`.
        unsafe { map_line::<K, true, S, R, L, T>(simd, i, from, to, compute) };
        i += step;
    }
    while i < lines.end {
        // SAFETY: the lines are within both extents.
        unsafe { map_line::<K, false, S, R, L, T>(simd, i, from, to, compute) };
        i += step;
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
        let loaded: [L::Item; K] = from.load_all(simd, index);
        let items = array(
            #[inline(always)]
            |k| compute(loaded[k]),
        );
        if STREAMS { to.stream::<K>(simd, index, items) } else { to.store_all::<K>(simd, index, items) }
    }
}
