//! The same two loops for data whose rows lie across the reduction: sums of each column of a few rows, and a map with
//! constants per column.

use super::{Element, Isa, Lanes, Load, Real, Sink, Source, Store};

/// How many rows are taken together: their sums stay in registers, and what is loaded per column serves them all.
const ROWS: usize = 4;

/// `K` sums per column: `add` puts the terms of one vector onto the accumulators. `rows` answers the inputs' rows, all as
/// long as `first` and `second`, which hold two constants per column; `sums` are added to.
///
/// An element passes through at most as many additions as there are rows.
///
/// The limit: two loads of constants, and `K` loads and stores of sums, for [`ROWS`] vectors from memory: bandwidth
/// from the second-level cache on.
#[inline(always)]
pub fn sum_columns<'a, S: Isa, D: Element, const N: usize, const K: usize>(
    simd: S,
    rows: impl ExactSizeIterator<Item = [Source<'a, D>; N]>,
    [first, second]: [Source<'_, D::Real>; 2],
    sums: &mut [&mut [D::Real]; K],
    add: impl Fn([Lanes<S, D::Real>; N], [Lanes<S, D::Real>; 2], [Lanes<S, D::Real>; K]) -> [Lanes<S, D::Real>; K] + Copy,
) {
    let mut rows = rows;
    let width = first.len();
    assert!(second.len() == width && sums.iter().all(|sums| sums.len() == width));
    while rows.len() > 0 {
        // Missing rows are not added.
        let count = rows.len().min(ROWS);
        let Some(start) = rows.next() else { break };
        let mut block = [start; ROWS];
        for row in &mut block[1..count] {
            *row = rows.next().unwrap_or(start);
        }
        assert!(block.iter().flatten().all(|row| row.len() == width));
        if count == ROWS {
            sum_block::<S, D, N, K, ROWS>(simd, block, [first, second], sums, add);
        } else {
            for row in &block[..count] {
                sum_block::<S, D, N, K, 1>(simd, [*row], [first, second], sums, add);
            }
        }
    }
}

/// `B` rows; all runs are of one length.
#[inline(always)]
fn sum_block<S: Isa, D: Element, const N: usize, const K: usize, const B: usize>(
    simd: S,
    rows: [[Source<'_, D>; N]; B],
    constants: [Source<'_, D::Real>; 2],
    sums: &mut [&mut [D::Real]; K],
    add: impl Fn([Lanes<S, D::Real>; N], [Lanes<S, D::Real>; 2], [Lanes<S, D::Real>; K]) -> [Lanes<S, D::Real>; K] + Copy,
) {
    let lanes = D::Real::lanes::<S>();
    let width = constants[0].len();
    let sums = sums.each_mut().map(|sums| Sink::from(&mut **sums));
    let mut i = 0;
    while i + lanes <= width {
        // SAFETY: the loop's condition; `sum_columns` made sure that all lengths are `width`.
        unsafe {
            let constants = constants.load(simd, i);
            let mut totals = [Lanes::splat(simd, D::Real::default()); K];
            for (total, sums) in totals.iter_mut().zip(&sums) {
                *total = sums.source().load(simd, i);
            }
            for row in &rows {
                totals = add(row.load(simd, i), constants, totals);
            }
            for (total, sums) in totals.into_iter().zip(&sums) {
                Store::<S, D::Real>::store(sums, simd, i, total);
            }
        }
        i += lanes;
    }
    if i < width {
        let count = width - i;
        // SAFETY: as above; less than a vector is left.
        unsafe {
            let constants = constants.load_head(simd, i, count);
            let mut totals = [Lanes::splat(simd, D::Real::default()); K];
            for (total, sums) in totals.iter_mut().zip(&sums) {
                *total = sums.source().load_head(simd, i, count);
            }
            for row in &rows {
                totals = add(row.load_head(simd, i, count), constants, totals);
            }
            for (total, sums) in totals.into_iter().zip(&sums) {
                Store::<S, D::Real>::store_head(sums, simd, i, count, total);
            }
        }
    }
}

/// Computes every element of the rows of the output from those of the inputs at the same place and from `P` constants
/// per column. `rows` answers the inputs' rows and the output's, all as long as `constants`.
///
/// All of the inputs is read at a place before the output is written there, so they may be the same memory.
///
/// The limit: `P` loads of constants for [`ROWS`] vectors loaded and stored: bandwidth from the second-level cache on.
#[inline(always)]
pub fn map_columns<'a, S: Isa, D: Element, const N: usize, const P: usize>(
    simd: S,
    rows: impl ExactSizeIterator<Item = ([Source<'a, D>; N], Sink<'a, D>)>,
    constants: [Source<'_, D::Real>; P],
    compute: impl Fn([Lanes<S, D::Real>; N], [Lanes<S, D::Real>; P]) -> Lanes<S, D::Real> + Copy,
) {
    let mut rows = rows;
    let width = constants[0].len();
    assert!(constants.iter().all(|constants| constants.len() == width));
    while rows.len() >= ROWS {
        // One by one: what `from_fn` calls may not be inlined.
        let block = [rows.next(), rows.next(), rows.next(), rows.next()];
        let [Some(a), Some(b), Some(c), Some(d)] = block else { break };
        let lines = Store::<S, D::Real>::lines(&a.1).filter(|lines| lines.lead == 0);
        match lines.map_or(1, |lines| lines.line / D::Real::lanes::<S>()) {
            2 => map_block::<S, D, N, P, ROWS, 2>(simd, [a, b, c, d], constants, compute),
            4 => map_block::<S, D, N, P, ROWS, 4>(simd, [a, b, c, d], constants, compute),
            _ => map_block::<S, D, N, P, ROWS, 1>(simd, [a, b, c, d], constants, compute),
        }
    }
    for row in rows {
        map_block::<S, D, N, P, 1, 1>(simd, [row], constants, compute);
    }
}

/// `B` rows, `V` vectors at a time: a cache line, unless that would not start where a line does.
#[inline(always)]
fn map_block<S: Isa, D: Element, const N: usize, const P: usize, const B: usize, const V: usize>(
    simd: S,
    rows: [([Source<'_, D>; N], Sink<'_, D>); B],
    constants: [Source<'_, D::Real>; P],
    compute: impl Fn([Lanes<S, D::Real>; N], [Lanes<S, D::Real>; P]) -> Lanes<S, D::Real> + Copy,
) {
    let lanes = D::Real::lanes::<S>();
    let width = constants[0].len();
    for (from, to) in &rows {
        assert!(from.iter().all(|from| from.len() == width) && Store::<S, D::Real>::extent(to) == Some(width));
    }
    let mut i = 0;
    while i + V * lanes <= width {
        // SAFETY: the loop's condition; all lengths are `width`.
        unsafe {
            let mut here = [constants.load(simd, i); V];
            let mut v = 1;
            while v < V {
                here[v] = constants.load(simd, i + v * lanes);
                v += 1;
            }
            for (from, to) in &rows {
                let mut items = [compute(from.load(simd, i), here[0]); V];
                let mut v = 1;
                while v < V {
                    items[v] = compute(from.load(simd, i + v * lanes), here[v]);
                    v += 1;
                }
                to.store_line(simd, i, items);
            }
        }
        i += V * lanes;
    }
    while i < width {
        let count = (width - i).min(lanes);
        // SAFETY: as above; `count` is a vector or what is left.
        unsafe {
            if count == lanes {
                let here = constants.load(simd, i);
                for (from, to) in &rows {
                    to.store(simd, i, compute(from.load(simd, i), here));
                }
            } else {
                let here = constants.load_head(simd, i, count);
                for (from, to) in &rows {
                    to.store_head(simd, i, count, compute(from.load_head(simd, i, count), here));
                }
            }
        }
        i += count;
    }
}
