//! The reduction stages that every family shares: mean and variance in two passes, mean of squares, and what to do
//! when squares leave the range of the type.

use crate::simd::{Element, Isa, Lanes, Real, Sink, Source, map, sum};

/// Mean, variance and what normalizing by them takes.
#[derive(Clone, Copy)]
pub struct Moments<R> {
    /// The mean, rounded to the working precision.
    pub hi: R,
    /// What rounding the mean lost: data of mean 10^6 and spread 1 need it.
    pub lo: R,
    /// The mean.
    pub mean: f64,
    /// The biased variance.
    pub variance: f64,
    /// `1 / sqrt(variance + eps)`
    pub rstd: R,
}

impl<R: Real> Moments<R> {
    /// Of at least one element.
    ///
    /// First pass: the mean. Second pass: the sums of `d = x - hi` and of `d^2`, where `hi` is that mean rounded. The
    /// former is what the first pass got wrong; it corrects both mean and variance, to the last bit where all elements
    /// are the same.
    #[inline(always)]
    pub fn new<S: Isa, E: Element<Real = R>>(simd: S, x: Source<'_, E>, eps: f64) -> Self {
        let count = x.len() as f64;
        let [total] = sum(simd, x, |x, [total]| [total + x]);
        let hi = R::from_f64(total / count);
        let centre = Lanes::splat(simd, hi);
        let [total, squares] = sum(simd, x, |x, [total, squares]| {
            let d = x - centre;
            [total + d, d.mul_add(d, squares)]
        });
        let lo = total / count;
        let variance = squares / count - lo * lo;
        // Not `max`, which would turn NaN into 0.
        let variance = if variance < 0.0 { 0.0 } else { variance };
        Moments {
            hi,
            lo: R::from_f64(lo),
            // An infinite mean has no correction.
            mean: if lo.is_finite() { hi.to_f64() + lo } else { hi.to_f64() },
            variance,
            rstd: R::from_f64(1.0 / (variance + eps).sqrt()),
        }
    }

    /// `x - mean` for each lane.
    #[inline(always)]
    pub fn centred<S: Isa>(&self, simd: S) -> impl Fn(Lanes<S, R>) -> Lanes<S, R> + Copy + use<S, R> {
        let (hi, lo) = (Lanes::splat(simd, self.hi), Lanes::splat(simd, self.lo));
        move |x| (x - hi) - lo
    }

    /// `(x - mean) / sqrt(variance + eps)` for each lane.
    #[inline(always)]
    pub fn normalized<S: Isa>(&self, simd: S) -> impl Fn(Lanes<S, R>) -> Lanes<S, R> + Copy + use<S, R> {
        let centred = self.centred(simd);
        let rstd = Lanes::splat(simd, self.rstd);
        move |x| centred(x) * rstd
    }
}

/// A total of many parts, in blocks: few roundings for each part, whatever their number.
#[derive(Clone, Copy, Default)]
pub struct Total {
    done: f64,
    block: f64,
    parts: usize,
}

impl Total {
    /// Parts of a block.
    pub const BLOCK: usize = 64;

    /// Adds a part.
    #[inline(always)]
    pub fn add(&mut self, part: f64) {
        self.block += part;
        self.parts += 1;
        if self.parts.is_multiple_of(Self::BLOCK) {
            self.done += self.block;
            self.block = 0.0;
        }
    }

    /// The total so far.
    #[inline(always)]
    pub fn get(self) -> f64 {
        self.done + self.block
    }
}

/// How a row stands to the data: multiplied by a power of two, if its squares leave the range of the type.
#[derive(Clone, Copy)]
pub struct Scaling {
    /// `eps` times the square of the scale, so that the quotients are the same.
    pub eps: f64,
    /// What the row has been multiplied by.
    pub scale: f64,
    /// Whether the statistic must be taken as it comes.
    last: bool,
}

impl Scaling {
    /// A row as it is.
    #[inline(always)]
    pub fn none(eps: f64) -> Self {
        Scaling { eps, scale: 1.0, last: false }
    }

    /// Whether a mean of squares may be used. If not, it may have overflowed or lost digits to underflow.
    #[inline(always)]
    pub fn accepts<R: Real>(&self, mean: f64) -> bool {
        self.last || (mean.is_finite() && mean + self.eps >= R::TINY)
    }
}

/// What an operator does with a row, whether rescaled or not.
pub trait Attempt<R: Real> {
    /// Computes the outputs of the row. Answers whether it did: it must not, and must have written nothing, if
    /// `scaling` does not accept its statistic.
    fn attempt<S: Isa, E: Element<Real = R>>(&mut self, simd: S, x: Source<'_, E>, scaling: Scaling) -> bool;
}

/// Attempts a row as it is, and if its squares leave the range of the working precision, multiplied by a power of two
/// that brings them to the middle of it. `room` is for that.
#[inline(always)]
pub fn attempt<S: Isa, E: Element>(
    simd: S,
    x: Source<'_, E>,
    eps: f64,
    room: &mut Vec<E::Real>,
    mut operator: impl Attempt<E::Real>,
) {
    if !operator.attempt(simd, x, Scaling::none(eps)) {
        rescue(x, eps, room, operator);
    }
}

/// The slow path; rare, so compiled for the portable instruction set only.
#[cold]
#[inline(never)]
fn rescue<E: Element>(x: Source<'_, E>, eps: f64, room: &mut Vec<E::Real>, mut operator: impl Attempt<E::Real>) {
    let scaling = rescale(x, x.len(), eps, room);
    operator.attempt(pulp::Scalar128b, Source::from(&room[..]), scaling);
}

/// Puts a row into `room`, multiplied by a power of two that brings the squares of its first `measured` elements to the
/// middle of the range.
#[inline(never)]
pub fn rescale<E: Element>(x: Source<'_, E>, measured: usize, eps: f64, room: &mut Vec<E::Real>) -> Scaling {
    // Nothing but zeros, or an element that is NaN or infinite, stays as it is.
    let scale = scale_of(x.part(0..measured), eps).unwrap_or(1.0);
    room.resize(x.len(), E::Real::default());
    let factor = Lanes::splat(pulp::Scalar128b, E::Real::from_f64(scale));
    map(pulp::Scalar128b, x, Sink::from(&mut room[..]), |x| x * factor);
    Scaling { eps: eps * scale * scale, scale, last: true }
}

fn scale_of<E: Element>(x: Source<'_, E>, eps: f64) -> Option<f64> {
    let mut largest = 0.0f64;
    for i in 0..x.len() {
        let size = x.get(i).to_f64().abs();
        if !size.is_finite() {
            return None;
        }
        largest = largest.max(size);
    }
    if largest == 0.0 {
        return None;
    }
    let limit = E::Real::MAX_EXPONENT;
    // `eps` times the square of the scale must stay finite.
    let highest = if eps > 0.0 { ((1000 - exponent(eps)) / 2).min(limit) } else { limit };
    Some((2.0f64).powi((-exponent(largest)).clamp(-limit, highest)))
}

/// The exponent of two of a positive number.
fn exponent(value: f64) -> i32 {
    if value < f64::MIN_POSITIVE {
        return exponent(value * (2.0f64).powi(64)) - 64;
    }
    (value.to_bits() >> 52) as i32 - 1023
}
