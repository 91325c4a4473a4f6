//! The reduction for data whose rows lie across it: sums of each column of a few rows.

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
                // Rows mostly follow one another; with short ones, the processor sees that late.
                for source in row {
                    source.prefetch(i + B * width);
                }
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
