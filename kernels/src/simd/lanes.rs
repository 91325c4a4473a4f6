//! Vectors of the working precision, with the usual operators.

use std::ops::{Add, Div, Mul, Sub};

use super::{Element, Isa};

/// A working precision: `f32` or `f64`.
pub trait Real: Element<Real = Self> + PartialOrd + pulp::bytemuck::Pod {
    /// A vector of them.
    type Vector<S: Isa>: Copy;

    /// A value below which a sum of squares has lost digits to underflow.
    const TINY: f64;
    /// The least number that has all digits.
    const LEAST: f64;
    /// From 1 to the next number.
    const EPSILON: f64;
    /// The largest exponent of two that a row is rescaled by.
    const MAX_EXPONENT: i32;

    /// Exact.
    fn to_f64(self) -> f64;

    /// Number of lanes.
    fn lanes<S: Isa>() -> usize;
    /// The same value in every lane.
    fn splat<S: Isa>(simd: S, value: Self) -> Self::Vector<S>;
    /// `a + b`
    fn add<S: Isa>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// `a - b`
    fn sub<S: Isa>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// `a * b`
    fn mul<S: Isa>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// `a / b`
    fn div<S: Isa>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// `a * b + c`, rounded once where the instruction set can.
    fn mul_add<S: Isa>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>, c: Self::Vector<S>) -> Self::Vector<S>;
    /// The sum of the lanes, as a balanced tree.
    fn sum<S: Isa>(simd: S, a: Self::Vector<S>) -> Self;
    /// The first `count` lanes of `head`, then those of `rest`.
    fn blend<S: Isa>(simd: S, count: usize, head: Self::Vector<S>, rest: Self::Vector<S>) -> Self::Vector<S>;
}

macro_rules! real {
    ($real:ident, $vector:ident, $lanes:ident, $tiny:expr, $exponent:expr, $splat:ident, $add:ident, $sub:ident,
     $mul:ident, $div:ident, $mul_add:ident, $sum:ident, $less:ident, $select:ident) => {
        impl Real for $real {
            type Vector<S: Isa> = S::$vector;

            const TINY: f64 = $tiny;
            const LEAST: f64 = $real::MIN_POSITIVE as f64;
            const EPSILON: f64 = $real::EPSILON as f64;
            const MAX_EXPONENT: i32 = $exponent;

            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn lanes<S: Isa>() -> usize {
                S::$lanes
            }
            #[inline(always)]
            fn splat<S: Isa>(simd: S, value: Self) -> S::$vector {
                simd.$splat(value)
            }
            #[inline(always)]
            fn add<S: Isa>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$add(a, b)
            }
            #[inline(always)]
            fn sub<S: Isa>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$sub(a, b)
            }
            #[inline(always)]
            fn mul<S: Isa>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$mul(a, b)
            }
            #[inline(always)]
            fn div<S: Isa>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$div(a, b)
            }
            #[inline(always)]
            fn mul_add<S: Isa>(simd: S, a: S::$vector, b: S::$vector, c: S::$vector) -> S::$vector {
                if S::FUSED { simd.$mul_add(a, b, c) } else { simd.$add(simd.$mul(a, b), c) }
            }
            #[inline(always)]
            fn sum<S: Isa>(simd: S, a: S::$vector) -> Self {
                simd.$sum(a)
            }
            #[inline(always)]
            fn blend<S: Isa>(simd: S, count: usize, head: S::$vector, rest: S::$vector) -> S::$vector {
                const RAMP: [$real; super::isa::MAX_LANES] =
                    [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];
                // SAFETY: `RAMP` has at least as many values as any vector has lanes.
                let ramp = unsafe { RAMP.as_ptr().cast::<S::$vector>().read_unaligned() };
                simd.$select(simd.$less(ramp, simd.$splat(count as $real)), head, rest)
            }
        }
    };
}

// Squares of f32 below 2^-126 lose digits; a sum of up to 2^26 of them is safe above 2^-100.
real!(
    f32,
    f32s,
    F32_LANES,
    7.888609052210118e-31,
    126,
    splat_f32s,
    add_f32s,
    sub_f32s,
    mul_f32s,
    div_f32s,
    mul_add_f32s,
    reduce_sum_f32s,
    less_than_f32s,
    select_f32s
);
// The same for f64: 2^-1022 and 2^-950.
real!(
    f64,
    f64s,
    F64_LANES,
    1.0506668461800843e-286,
    1000,
    splat_f64s,
    add_f64s,
    sub_f64s,
    mul_f64s,
    div_f64s,
    mul_add_f64s,
    reduce_sum_f64s,
    less_than_f64s,
    select_f64s
);

/// A vector of the working precision `R`.
#[derive(Clone, Copy)]
pub struct Lanes<S: Isa, R: Real> {
    pub(super) simd: S,
    pub(super) value: R::Vector<S>,
}

impl<S: Isa, R: Real> Lanes<S, R> {
    /// The same value in every lane.
    #[inline(always)]
    pub fn splat(simd: S, value: R) -> Self {
        Lanes { simd, value: R::splat(simd, value) }
    }

    /// [`splat`](Self::splat) of each value.
    #[inline(always)]
    pub fn splats<const N: usize>(simd: S, values: [R; N]) -> [Self; N] {
        // A loop: closures that `map` calls are not compiled for the instruction set.
        let mut lanes = [Self::splat(simd, R::default()); N];
        for (lanes, value) in lanes.iter_mut().zip(values) {
            *lanes = Self::splat(simd, value);
        }
        lanes
    }

    /// `self * b + c`, rounded once where the instruction set can.
    #[inline(always)]
    pub fn mul_add(self, b: Self, c: Self) -> Self {
        Lanes { simd: self.simd, value: R::mul_add(self.simd, self.value, b.value, c.value) }
    }

    /// The sum of the lanes, as a balanced tree.
    #[inline(always)]
    pub fn sum(self) -> R {
        R::sum(self.simd, self.value)
    }

    /// The first `count` lanes of `self`, then those of `rest`.
    #[inline(always)]
    pub fn head_or(self, count: usize, rest: Self) -> Self {
        Lanes { simd: self.simd, value: R::blend(self.simd, count, self.value, rest.value) }
    }
}

macro_rules! operator {
    ($($operator:ident $function:ident),*) => {$(
        impl<S: Isa, R: Real> $operator for Lanes<S, R> {
            type Output = Self;
            #[inline(always)]
            fn $function(self, other: Self) -> Self {
                Lanes { simd: self.simd, value: R::$function(self.simd, self.value, other.value) }
            }
        }
    )*};
}
operator!(Add add, Sub sub, Mul mul, Div div);
