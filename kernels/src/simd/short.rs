//! Reduction and map for many rows of a few vectors each, with constants of their own: what a loop over rows costs besides
//! the rows is paid once.

use super::{Column, Element, Isa, Lanes, Load, Real, Sink, Store};

/// `K` sums of each row, as many as there are in `first` and `second`, which hold two constants per row; `sums` are added
/// to.
///
/// An element passes through half as many additions as there are vectors in a row, and those of their lanes.
///
/// The limit: adding up the lanes, at one shuffle a cycle.
#[inline(always)]
pub fn sum_rows<S: Isa, D: Element, const N: usize, const K: usize>(
    simd: S,
    rows: [Column<'_, D>; N],
    width: usize,
    [first, second]: [&[D::Real]; 2],
    sums: [&mut [f64]; K],
    add: impl Fn([Lanes<S, D::Real>; N], [Lanes<S, D::Real>; 2], [Lanes<S, D::Real>; K]) -> [Lanes<S, D::Real>; K],
) {
    let (lanes, count) = (D::Real::lanes::<S>(), first.len());
    assert!(second.len() == count);
    check(&rows, count, width);
    let mut sums = sums;
    for sums in &mut sums {
        *sums = &mut std::mem::take(sums)[..count];
    }
    let zero = Lanes::splat(simd, D::Real::default());
    for row in 0..count {
        let constants = Lanes::splats(simd, [first[row], second[row]]);
        let mut totals = [[zero; K]; 2];
        let mut i = 0;
        // SAFETY: the loop's conditions, and the check above.
        unsafe {
            while i + 2 * lanes <= width {
                totals[0] = add(load(simd, &rows, row, i), constants, totals[0]);
                totals[1] = add(load(simd, &rows, row, i + lanes), constants, totals[1]);
                i += 2 * lanes;
            }
            if i + lanes <= width {
                totals[0] = add(load(simd, &rows, row, i), constants, totals[0]);
                i += lanes;
            }
            if i < width {
                let next = add(load_head(simd, &rows, row, i, width - i), constants, totals[1]);
                for (total, next) in totals[1].iter_mut().zip(next) {
                    *total = next.head_or(width - i, *total);
                }
            }
        }
        for (k, sums) in sums.iter_mut().enumerate() {
            sums[row] += (totals[0][k] + totals[1][k]).sum().to_f64();
        }
    }
}

/// Computes the rows of `to`, `pitch` elements apart, from those of `from` and the constants of each row.
///
/// All of `from` is read at an index before `to` is written there, so they may be the same memory.
///
/// The limit: stores across the ends of cache lines.
#[inline(always)]
pub fn map_rows<S: Isa, D: Element, const N: usize, const P: usize>(
    simd: S,
    from: [Column<'_, D>; N],
    (to, pitch): (Sink<'_, D>, usize),
    width: usize,
    constants: [&[D::Real]; P],
    compute: impl Fn([Lanes<S, D::Real>; N], [Lanes<S, D::Real>; P]) -> Lanes<S, D::Real>,
) {
    let (lanes, count) = (D::Real::lanes::<S>(), constants[0].len());
    for constants in &constants {
        assert!(constants.len() == count);
    }
    check(&from, count, width);
    check(&[Column { source: to.source(), pitch }], count, width);
    for row in 0..count {
        let mut values = [D::Real::default(); P];
        for (value, constants) in values.iter_mut().zip(&constants) {
            *value = constants[row];
        }
        let values = Lanes::splats(simd, values);
        let mut i = 0;
        // SAFETY: the loop's conditions, and the checks above.
        unsafe {
            // Half-precision vectors are packed together.
            while i + 2 * lanes <= width {
                let first = compute(load(simd, &from, row, i), values);
                let second = compute(load(simd, &from, row, i + lanes), values);
                to.store_all(simd, row * pitch + i, [first, second]);
                i += 2 * lanes;
            }
            if i + lanes <= width {
                to.store(simd, row * pitch + i, compute(load(simd, &from, row, i), values));
                i += lanes;
            }
            if i < width {
                let value = compute(load_head(simd, &from, row, i, width - i), values);
                to.store_head(simd, row * pitch + i, width - i, value);
            }
        }
    }
}

/// Makes sure that there are so many rows.
#[inline(always)]
fn check<D: Element>(rows: &[Column<'_, D>], count: usize, width: usize) {
    for row in rows {
        assert!(count == 0 || (count - 1) * row.pitch + width <= row.source.len());
    }
}

/// A vector of each row.
///
/// # Safety
/// There are so many rows, with so many elements and a vector more.
#[inline(always)]
unsafe fn load<S: Isa, D: Element, const N: usize>(
    simd: S,
    rows: &[Column<'_, D>; N],
    row: usize,
    i: usize,
) -> [Lanes<S, D::Real>; N] {
    let mut items = [Lanes::splat(simd, D::Real::default()); N];
    for (item, &Column { source, pitch }) in items.iter_mut().zip(rows) {
        // SAFETY: the caller's promise.
        *item = unsafe { source.load(simd, row * pitch + i) };
    }
    items
}

/// The first `rest` lanes of a vector of each row.
///
/// # Safety
/// There are so many rows, with so many elements and `rest` more, which are less than a vector.
#[inline(always)]
unsafe fn load_head<S: Isa, D: Element, const N: usize>(
    simd: S,
    rows: &[Column<'_, D>; N],
    row: usize,
    i: usize,
    rest: usize,
) -> [Lanes<S, D::Real>; N] {
    let mut items = [Lanes::splat(simd, D::Real::default()); N];
    for (item, &Column { source, pitch }) in items.iter_mut().zip(rows) {
        // SAFETY: the caller's promise.
        *item = unsafe { source.load_head(simd, row * pitch + i, rest) };
    }
    items
}
