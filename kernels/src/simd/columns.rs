//! The reduction for data whose rows lie across it: sums of each column of a few rows.

use super::{CACHE_LINE, Element, Isa, Lanes, Load, Real, Sink, Source, Store};

/// Vectors of a row whose sums are taken together, if they stay in registers: so many chains of additions hide the
/// latency of one.
pub const STRIP: usize = 4;

/// Rows that are taken together, strip after strip, if one strip is not a whole row: so few are read in the order of
/// memory, nearly, and their sums are worth loading and storing.
const TOGETHER: usize = 8;

/// Rows of one length, at equal distances.
#[derive(Clone, Copy)]
pub struct Column<'a, E> {
    /// From the first element of the first row on, to the last of the last at least.
    pub source: Source<'a, E>,
    /// Elements from a row to the next.
    pub pitch: usize,
}

/// `K` sums per column of `count` rows: `add` puts the terms of one vector onto the accumulators. Rows are as long as
/// `first` and `second`, which hold two constants per column; `sums` are added to.
///
/// An element passes through at most as many additions as there are rows.
///
/// The limit: one load and the arithmetic of each vector in the first-level cache, as sums and constants stay in
/// registers from row to row; else bandwidth, if `fetches`: processors do not see that strips of a few rows are followed by
/// those of the next. In the caches, to ask for these costs a twentieth of the time.
#[inline(always)]
pub fn sum_columns<S: Isa, D: Element, const N: usize, const K: usize>(
    simd: S,
    rows: [Column<'_, D>; N],
    count: usize,
    [first, second]: [Source<'_, D::Real>; 2],
    sums: &mut [&mut [D::Real]; K],
    fetches: bool,
    add: impl Fn([Lanes<S, D::Real>; N], [Lanes<S, D::Real>; 2], [Lanes<S, D::Real>; K]) -> [Lanes<S, D::Real>; K] + Copy,
) {
    let (lanes, width) = (D::Real::lanes::<S>(), first.len());
    assert!(second.len() == width);
    for sums in sums.iter() {
        assert!(sums.len() == width);
    }
    for row in &rows {
        assert!(count == 0 || (count - 1) * row.pitch + width <= row.source.len());
    }
    let to = sums.each_mut().map(|sums| Sink::from(&mut **sums));
    let is_whole = width <= STRIP * lanes;
    let near = if is_whole { count.max(1) } else { TOGETHER };
    // Sums and constants of a long strip are more than 16 registers.
    let is_long = K <= 2 || lanes * size_of::<D::Real>() == CACHE_LINE;
    let mut start = 0;
    while start < count {
        let range = [start, count.min(start + near)];
        let block = Block { rows, range, constants: [first, second], to: &to, fetches: fetches && !is_whole };
        let mut i = 0;
        // SAFETY: the loops' conditions, and the assertions above.
        unsafe {
            if is_long {
                while i + STRIP * lanes <= width {
                    block.strip::<S, STRIP>(simd, i, add);
                    i += STRIP * lanes;
                }
            }
            while i + 2 * lanes <= width {
                block.strip::<S, 2>(simd, i, add);
                i += 2 * lanes;
            }
            while i + lanes <= width {
                block.strip::<S, 1>(simd, i, add);
                i += lanes;
            }
            if i < width {
                block.head(simd, i, width - i, add);
            }
        }
        start += near;
    }
}

/// Rows that are taken together, from the first to before the second of `range`.
struct Block<'a, 'b, D: Element, const N: usize, const K: usize> {
    rows: [Column<'a, D>; N],
    range: [usize; 2],
    constants: [Source<'a, D::Real>; 2],
    to: &'b [Sink<'a, D::Real>; K],
    /// Whether to ask for the rows after these.
    fetches: bool,
}

impl<D: Element, const N: usize, const K: usize> Block<'_, '_, D, N, K> {
    /// `V` vectors of each row.
    ///
    /// # Safety
    /// All rows, the constants and the sums have as many elements from `i` on.
    #[inline(always)]
    unsafe fn strip<S: Isa, const V: usize>(
        &self,
        simd: S,
        i: usize,
        add: impl Fn([Lanes<S, D::Real>; N], [Lanes<S, D::Real>; 2], [Lanes<S, D::Real>; K]) -> [Lanes<S, D::Real>; K],
    ) {
        let lanes = D::Real::lanes::<S>();
        let zero = Lanes::splat(simd, D::Real::default());
        let mut constants = [[zero; 2]; V];
        let mut totals = [[zero; K]; V];
        let [start, end] = self.range;
        // SAFETY: the caller's promise.
        unsafe {
            for (v, (constants, totals)) in constants.iter_mut().zip(&mut totals).enumerate() {
                *constants = self.constants.load(simd, i + v * lanes);
                for (total, to) in totals.iter_mut().zip(self.to) {
                    *total = to.source().load(simd, i + v * lanes);
                }
            }
            for row in start..end {
                for (v, (constants, totals)) in constants.iter().zip(&mut totals).enumerate() {
                    let mut items = [zero; N];
                    for (item, &Column { source, pitch }) in items.iter_mut().zip(&self.rows) {
                        let at = row * pitch + i + v * lanes;
                        if self.fetches && (v * lanes * size_of::<D>()).is_multiple_of(CACHE_LINE) {
                            source.ahead(TOGETHER * pitch).fetch(at);
                        }
                        *item = source.load(simd, at);
                    }
                    *totals = add(items, *constants, *totals);
                }
            }
            for (v, totals) in totals.into_iter().enumerate() {
                for (total, to) in totals.into_iter().zip(self.to) {
                    Store::<S, D::Real>::store(to, simd, i + v * lanes, total);
                }
            }
        }
    }

    /// The `rest` columns from `i` on, which are less than a vector.
    ///
    /// # Safety
    /// As for `strip`.
    #[inline(always)]
    unsafe fn head<S: Isa>(
        &self,
        simd: S,
        i: usize,
        rest: usize,
        add: impl Fn([Lanes<S, D::Real>; N], [Lanes<S, D::Real>; 2], [Lanes<S, D::Real>; K]) -> [Lanes<S, D::Real>; K],
    ) {
        let zero = Lanes::splat(simd, D::Real::default());
        let mut totals = [zero; K];
        let [start, end] = self.range;
        // SAFETY: the caller's promise.
        unsafe {
            let constants = self.constants.load_head(simd, i, rest);
            for (total, to) in totals.iter_mut().zip(self.to) {
                *total = to.source().load_head(simd, i, rest);
            }
            for row in start..end {
                let mut items = [zero; N];
                for (item, &Column { source, pitch }) in items.iter_mut().zip(&self.rows) {
                    *item = source.load_head(simd, row * pitch + i, rest);
                }
                totals = add(items, constants, totals);
            }
            for (total, to) in totals.into_iter().zip(self.to) {
                Store::<S, D::Real>::store_head(to, simd, i, rest, total);
            }
        }
    }
}
