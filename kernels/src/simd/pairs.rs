//! Sums of bfloat16 as it is stored, two elements in a lane.

use half::bf16;

use super::{Isa, Lanes, Load, Real, Source, sum};

/// The sums of a run and of its squares, the former only if `totals`; `None` if the processor cannot, or if it took numbers
/// for zeros that matter.
///
/// An element passes through as many additions as in [`sum`].
///
/// The limit: one load of two elements a lane, and its two products, at one a cycle, out of the first-level cache; widened,
/// the same elements take two shuffles, two additions and two fused multiplications.
#[inline(always)]
pub(super) fn sums<S: Isa>(simd: S, from: Source<'_, bf16>, totals: bool) -> Option<[f64; 2]> {
    if !simd.multiplies_bf16() {
        return None;
    }
    let one = f32::from_bits(u32::from(bf16::ONE.to_bits()) * 0x1_0001);
    let one = Lanes::splat(simd, one);
    let [mut total, mut squares] = sum(
        simd,
        Pairs(from),
        #[inline(always)]
        |pair, [total, squares]| {
            // SAFETY: just asked.
            unsafe { [if totals { dot(pair, one, total) } else { total }, dot(pair, pair, squares)] }
        },
    );
    if !from.len().is_multiple_of(2) {
        let last = from.get(from.len() - 1).to_f64();
        (total, squares) = (total + last, squares + last * last);
    }
    // Products and numbers below 2^-126 count as zeros. Beside a mean square that is not tiny, they may.
    (squares.is_finite() && squares >= f32::TINY * from.len() as f64).then_some([total, squares])
}

/// Two neighbours in each lane.
struct Pairs<'a>(Source<'a, bf16>);

impl<S: Isa> Load<S, f32> for Pairs<'_> {
    type Item = Lanes<S, f32>;

    const TERMS: usize = 2;

    #[inline(always)]
    fn extent(&self) -> Option<usize> {
        Some(self.0.len() / 2)
    }

    #[inline(always)]
    unsafe fn load(&self, simd: S, index: usize) -> Self::Item {
        // SAFETY: the caller's promise, for as many pairs; any bits are a vector.
        Lanes { simd, value: unsafe { self.0.as_ptr().add(2 * index).cast::<S::f32s>().read_unaligned() } }
    }

    #[inline(always)]
    unsafe fn load_head(&self, simd: S, index: usize, count: usize) -> Self::Item {
        // SAFETY: the caller's promise, for as many pairs; `load_head` gives a full vector to read.
        let value = unsafe {
            let from = self.0.as_ptr().add(2 * index).cast::<[bf16; 2]>();
            simd.load_head(from, count).as_ptr::<S::f32s>().read()
        };
        Lanes { simd, value }
    }
}

/// Adds the products of the neighbours in each lane to `sums`.
///
/// # Safety
/// [`Isa::multiplies_bf16`] answered `true`.
#[inline(always)]
unsafe fn dot<S: Isa>(one: Lanes<S, f32>, other: Lanes<S, f32>, sums: Lanes<S, f32>) -> Lanes<S, f32> {
    // SAFETY: the caller's promise.
    Lanes { simd: one.simd, value: unsafe { one.simd.dot_bf16(one.value, other.value, sums.value) } }
}
