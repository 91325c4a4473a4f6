//! Storage types: how they are widened, rounded and stored.

use half::{bf16, f16};

use super::isa::bf16_bits;
use super::load::array;
use super::pairs;
use super::{Isa, Lanes, Real, Source};
use crate::abi::Dtype;

/// A type that tensors are stored in.
pub trait Element: Copy + Default + Send + Sync + 'static {
    /// The precision its arithmetic is done in.
    type Real: Real;

    /// What the door calls it.
    const DTYPE: Dtype;

    /// Whether it holds less than the working precision.
    const IS_NARROW: bool;

    /// Widens; exact.
    fn widen(self) -> Self::Real;

    /// Rounds once, to nearest, ties to even.
    fn from_f64(value: f64) -> Self;

    /// A number of the working precision that is rounded to this type as `value` is.
    fn prepare(value: f64) -> Self::Real;

    /// Loads and widens a vector.
    ///
    /// # Safety
    /// A vector's worth of values is readable at `from`.
    unsafe fn load<S: Isa>(simd: S, from: *const Self) -> Lanes<S, Self::Real>;

    /// Loads and widens `K` vectors, one after the other.
    ///
    /// # Safety
    /// `K` vectors' worth of values are readable at `from`.
    #[inline(always)]
    unsafe fn load_all<S: Isa, const K: usize>(simd: S, from: *const Self) -> [Lanes<S, Self::Real>; K] {
        array(
            #[inline(always)]
            |k| {
                // SAFETY: the caller's promise.
                unsafe { Self::load(simd, from.add(k * Self::Real::lanes::<S>())) }
            },
        )
    }

    /// The sums of a run and of its squares, the former only if `totals`, where the processor has instructions that add up
    /// products of this type as it is stored. `None` where it has not, or if they are not good enough for these values.
    #[inline(always)]
    fn sums<S: Isa>(_: S, _: Source<'_, Self>, _totals: bool) -> Option<[f64; 2]> {
        None
    }

    /// Rounds and stores a vector.
    ///
    /// # Safety
    /// A vector's worth of values is writable at `to`.
    unsafe fn store<S: Isa>(simd: S, to: *mut Self, value: Lanes<S, Self::Real>);

    /// Rounds and stores `K` vectors, one after the other.
    ///
    /// # Safety
    /// `K` vectors' worth of values are writable at `to`.
    #[inline(always)]
    unsafe fn store_all<S: Isa, const K: usize>(simd: S, to: *mut Self, values: [Lanes<S, Self::Real>; K]) {
        for (k, value) in values.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { Self::store(simd, to.add(k * Self::Real::lanes::<S>()), value) };
        }
    }

    /// Rounds to this type and widens again.
    fn round<S: Isa>(value: Lanes<S, Self::Real>) -> Lanes<S, Self::Real>;
}

macro_rules! working_precision {
    ($real:ident, $dtype:expr, $vector:ident) => {
        impl Element for $real {
            type Real = $real;

            const DTYPE: Dtype = $dtype;
            const IS_NARROW: bool = false;

            #[inline(always)]
            fn widen(self) -> Self {
                self
            }

            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                value as $real
            }

            #[inline(always)]
            fn prepare(value: f64) -> $real {
                value as $real
            }

            #[inline(always)]
            unsafe fn load<S: Isa>(simd: S, from: *const Self) -> Lanes<S, Self> {
                // SAFETY: the caller's promise; any bits are a vector.
                Lanes { simd, value: unsafe { from.cast::<S::$vector>().read_unaligned() } }
            }

            #[inline(always)]
            unsafe fn store<S: Isa>(_: S, to: *mut Self, value: Lanes<S, Self>) {
                // SAFETY: the caller's promise.
                unsafe { to.cast::<S::$vector>().write_unaligned(value.value) };
            }

            #[inline(always)]
            fn round<S: Isa>(value: Lanes<S, Self>) -> Lanes<S, Self> {
                value
            }
        }
    };
}
working_precision!(f32, Dtype::F32, f32s);
working_precision!(f64, Dtype::F64, f64s);

impl Element for bf16 {
    type Real = f32;

    const DTYPE: Dtype = Dtype::Bf16;
    const IS_NARROW: bool = true;

    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }

    fn from_f64(value: f64) -> Self {
        bf16::from_bits(bf16_bits(to_odd(value)))
    }

    #[inline(always)]
    fn prepare(value: f64) -> f32 {
        to_odd(value)
    }

    #[inline(always)]
    unsafe fn load<S: Isa>(simd: S, from: *const Self) -> Lanes<S, f32> {
        // SAFETY: the caller's promise; `bf16` is a transparent `u16`.
        Lanes { simd, value: unsafe { simd.load_bf16(from.cast()) } }
    }

    #[inline(always)]
    unsafe fn load_all<S: Isa, const K: usize>(simd: S, from: *const Self) -> [Lanes<S, f32>; K] {
        let mut values = [Lanes::splat(simd, 0.0); K];
        let mut k = 0;
        while k < K {
            // SAFETY: the caller's promise; `bf16` is a transparent `u16`.
            unsafe {
                let from = from.add(k * S::F32_LANES).cast();
                if k + 1 < K {
                    let [first, second] = simd.load_bf16_pair(from);
                    (values[k].value, values[k + 1].value) = (first, second);
                } else {
                    values[k].value = simd.load_bf16(from);
                }
            }
            k += 2;
        }
        values
    }

    #[inline(always)]
    fn sums<S: Isa>(simd: S, from: Source<'_, Self>, totals: bool) -> Option<[f64; 2]> {
        pairs::sums(simd, from, totals)
    }

    #[inline(always)]
    unsafe fn store<S: Isa>(simd: S, to: *mut Self, value: Lanes<S, f32>) {
        // SAFETY: the caller's promise; `bf16` is a transparent `u16`.
        unsafe { simd.store_upper(to.cast(), simd.round_bf16(value.value)) };
    }

    #[inline(always)]
    unsafe fn store_all<S: Isa, const K: usize>(simd: S, to: *mut Self, values: [Lanes<S, f32>; K]) {
        let mut k = 0;
        while k < K {
            // SAFETY: the caller's promise; `bf16` is a transparent `u16`.
            unsafe {
                let to = to.add(k * S::F32_LANES).cast();
                if k + 1 < K {
                    simd.store_bf16_pair(to, values[k].value, values[k + 1].value);
                } else {
                    simd.store_upper(to, simd.round_bf16(values[k].value));
                }
            }
            k += 2;
        }
    }

    #[inline(always)]
    fn round<S: Isa>(value: Lanes<S, f32>) -> Lanes<S, f32> {
        let simd = value.simd;
        let bits = simd.and_u32s(simd.round_bf16(value.value), simd.splat_u32s(0xffff_0000));
        Lanes { simd, value: simd.transmute_f32s_u32s(bits) }
    }
}

impl Element for f16 {
    type Real = f32;

    const DTYPE: Dtype = Dtype::F16;
    const IS_NARROW: bool = true;

    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }

    fn from_f64(value: f64) -> Self {
        f16::from_f32(to_odd(value))
    }

    #[inline(always)]
    fn prepare(value: f64) -> f32 {
        to_odd(value)
    }

    #[inline(always)]
    unsafe fn load<S: Isa>(simd: S, from: *const Self) -> Lanes<S, f32> {
        // SAFETY: the caller's promise; `f16` is a transparent `u16`.
        Lanes { simd, value: unsafe { simd.load_f16(from.cast()) } }
    }

    #[inline(always)]
    unsafe fn store<S: Isa>(simd: S, to: *mut Self, value: Lanes<S, f32>) {
        // SAFETY: the caller's promise; `f16` is a transparent `u16`.
        unsafe { simd.store_f16(to.cast(), value.value) };
    }

    #[inline(always)]
    fn round<S: Isa>(value: Lanes<S, f32>) -> Lanes<S, f32> {
        Lanes { simd: value.simd, value: value.simd.round_f16(value.value) }
    }
}

/// Rounds to odd: an inexact result gets an odd last bit, so that a later rounding to fewer bits is as if it were
/// the only one. Without a branch, so that a loop of it becomes one of vectors.
#[inline(always)]
fn to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    let (back, bits) = (f64::from(nearest), nearest.to_bits());
    // The neighbour on the other side of `value` is odd. Bits of one sign are ordered by magnitude.
    let neighbour = if value.abs() > back.abs() { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
    let is_even = bits & 1 == 0;
    // Neither is a NaN.
    let is_inexact = (back < value) | (back > value);
    f32::from_bits(if is_inexact & is_even { neighbour } else { bits })
}
