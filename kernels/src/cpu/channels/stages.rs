//! What an operator does with elements where they lie: sums over a set, what they say of it, and a map.

use std::ops::Range;

use crate::cpu::moments::Total;
use crate::simd::{Isa, Lanes, Real};

/// Numbers that a set is normalized with, at most.
pub const SET: usize = 4;

/// What the sums over a set are taken about: `d = (x - shift) * scale`.
#[derive(Clone, Copy)]
pub struct Origin<R> {
    /// Near the mean.
    pub shift: R,
    /// A power of two near one over the standard deviation, where products of `d` with other data must not leave the
    /// range of the type; else 1.
    pub scale: R,
}

/// That of data which are taken as they are.
impl<R: Real> Default for Origin<R> {
    #[inline(always)]
    fn default() -> Self {
        Origin { shift: R::default(), scale: R::from_f64(1.0) }
    }
}

impl<R: Real> Origin<R> {
    /// For data of this mean and variance, as far as they are known.
    pub fn near(mean: f64, variance: f64, scales: bool) -> Self {
        // Squares of small data sink to 0. But data that are not constant differ by what their mean's size lets them.
        let least = mean * R::EPSILON;
        let variance = variance.max(least * least);
        let scale = if scales && variance > 0.0 && variance.is_finite() {
            // The exponent of two of the root of the variance, roughly.
            let exponent = ((variance.to_bits() >> 52) as i32 - 1023) >> 1;
            f64::from_bits(((1023 - exponent.clamp(-R::MAX_EXPONENT, R::MAX_EXPONENT)) as u64) << 52)
        } else {
            1.0
        };
        let shift = R::from_f64(mean);
        Origin { shift: if shift.to_f64().is_finite() { shift } else { R::default() }, scale: R::from_f64(scale) }
    }

    /// Makes it that of some channels, given the shift and scale of each.
    ///
    /// # Panics
    /// If there is no channel, or not so many.
    #[inline(always)]
    pub fn place(self, channels: Range<usize>, origins: &mut [Vec<R>; 2]) {
        for (values, value) in origins.iter_mut().zip([self.shift, self.scale]) {
            // Filling takes long to begin with.
            values[channels.start] = value;
            if channels.len() > 1 {
                values[channels.start + 1..channels.end].fill(value);
            }
        }
    }
}

/// One over a power of two whose inverse is a normal number, too: cheaper than a division.
#[inline(always)]
pub fn inverse(power_of_two: f64) -> f64 {
    f64::from_bits((2046 << 52) - power_of_two.to_bits())
}

/// What the sums over a set say.
pub enum Outcome<R> {
    /// What to normalize it with.
    Ready([f64; SET]),
    /// The origin was too far from the mean, or its scale from the spread: sums about this one will do.
    Again(Origin<R>),
    /// Squares may have left the range of the type: let the set be gathered.
    Gather,
}

/// A set whose sums are known.
pub struct Summed<'a, R, const K: usize> {
    /// Each sum, for each part of the set: its channels if [`Stages::BY_CHANNEL`], else any.
    pub parts: [&'a [f64]; K],
    /// What they were taken about.
    pub origin: Origin<R>,
    /// One over the number of elements.
    pub share: f64,
    /// The channels.
    pub channels: Range<usize>,
    /// Whether the origin has been improved already.
    pub last: bool,
}

impl<R, const K: usize> Summed<'_, R, K> {
    /// A sum over the whole set.
    #[inline(always)]
    pub fn total(&self, which: usize) -> f64 {
        if let [part] = self.parts[which] {
            return *part;
        }
        let mut total = Total::default();
        self.parts[which].iter().for_each(|part| total.add(*part));
        total.get()
    }
}

/// Sets of one channel each, whose sums are known.
pub struct Channels<'a, R, const K: usize> {
    /// Each sum, per set.
    pub sums: [&'a [f64]; K],
    /// Shift and scale that they were taken about, per set.
    pub origins: [&'a [R]; 2],
    /// One over the number of elements of a set.
    pub share: f64,
    /// The channel of the first.
    pub first: usize,
}

impl<R, const K: usize> Channels<'_, R, K> {
    /// Makes sure that there are `count`; then nobody need look again.
    #[inline(always)]
    pub fn checked(self, count: usize) -> Self {
        let Channels { mut sums, mut origins, .. } = self;
        for sums in &mut sums {
            *sums = &sums[..count];
        }
        for origins in &mut origins {
            *origins = &origins[..count];
        }
        Channels { sums, origins, ..self }
    }
}

/// Mean and variance.
pub struct Located {
    /// The mean, rounded.
    pub hi: f64,
    /// What rounding the mean lost: data of mean 10^6 and spread 1 need it.
    pub lo: f64,
    /// `1 / sqrt(variance + eps)`
    pub rstd: f64,
    /// The mean.
    pub mean: f64,
    /// The biased variance.
    pub variance: f64,
    /// The mean of `d`.
    pub delta: f64,
}

/// How far the mean may be from the origin, squared, in variances: then the variance, a difference, is off by at most twice
/// as much as about the mean itself. A larger distance costs another pass.
const FAR: f64 = 1.0;

/// Spreads of scaled data that are as they should be.
const FITTING: Range<f64> = 1e-8..1e12;

impl Located {
    /// From the sums of `d` and `d * d`, whether they suffice, and whether the origin was too far away: without branches,
    /// so that a loop over sets takes several at a time.
    #[inline(always)]
    fn weigh<R: Real>(sums: [f64; 2], [shift, scale]: [R; 2], share: f64, eps: f64, scales: bool) -> (Self, [bool; 2]) {
        let (shift, scale) = (shift.to_f64(), scale.to_f64());
        let delta = sums[0] * share;
        let mean_square = sums[1] * share;
        let spread = mean_square - delta * delta;
        // Not `max`, which would turn NaN into 0.
        let spread = if spread < 0.0 { 0.0 } else { spread };
        let unfit = scales & (spread > 0.0) & !FITTING.contains(&spread);
        let is_far = ((delta * delta > FAR * spread) | unfit) & (mean_square < f64::INFINITY);
        // NaN is neither.
        let suffices = (spread + eps * scale * scale >= R::TINY) & (spread < f64::INFINITY) & !unfit;
        let unscale = if scales { inverse(scale) } else { 1.0 };
        let (delta_x, variance) = (delta * unscale, spread * unscale * unscale);
        let mean = shift + delta_x;
        let hi = R::from_f64(mean).to_f64();
        let lo = (shift - hi) + delta_x;
        (Located { hi, lo, rstd: 1.0 / (variance + eps).sqrt(), mean, variance, delta }, [suffices, is_far])
    }

    /// From the sums of `d` and `d * d`.
    ///
    /// # Errors
    /// What to do with the set if they do not suffice.
    #[inline(always)]
    pub fn new<R: Real, const K: usize>(set: &Summed<'_, R, K>, eps: f64, scales: bool) -> Result<Self, Outcome<R>> {
        let origin = [set.origin.shift, set.origin.scale];
        let (located, [suffices, is_far]) = Self::weigh([set.total(0), set.total(1)], origin, set.share, eps, scales);
        if is_far && !set.last {
            return Err(Outcome::Again(Origin::near(located.mean, located.variance, scales)));
        }
        if suffices { Ok(located) } else { Err(Outcome::Gather) }
    }

    /// That of the set at `i`, and whether its sums suffice.
    #[inline(always)]
    pub fn at<R: Real, const K: usize>(sets: &Channels<'_, R, K>, i: usize, eps: f64, scales: bool) -> (Self, bool) {
        let (sums, [shift, scale]) = (sets.sums, sets.origins);
        let (located, [suffices, is_far]) =
            Self::weigh([sums[0][i], sums[1][i]], [shift[i], scale[i]], sets.share, eps, scales);
        (located, suffices & !is_far)
    }
}

/// `value` in the working precision, and whether that is as good as `value`: a normal number, or 0 where a factor of it is.
#[inline(always)]
pub fn rounded<R: Real>(value: f64, factor: f64) -> (R, bool) {
    let rounded = R::from_f64(value);
    let size = rounded.to_f64().abs();
    (rounded, ((size >= R::LEAST) & (size < f64::INFINITY)) | ((size == 0.0) & (factor == 0.0)))
}

/// An operator whose data need not be gathered: `K` sums over each set and a map with `P` constants for each channel of
/// a set, both from `N` inputs.
pub trait Stages<R: Real, const N: usize, const K: usize, const P: usize>: Sync {
    /// Whether the map needs to know the sums.
    const WAITS: bool = true;
    /// Whether sums of each channel are needed, rather than of the set.
    const BY_CHANNEL: bool = false;
    /// Whether the origin has a scale.
    const SCALES: bool = false;

    /// Whether the map will do, as far as is known before.
    fn fits(&self) -> bool {
        true
    }

    /// The origin, if it is not to be found near the mean.
    fn origin(&self, _channel: usize) -> Option<Origin<R>> {
        None
    }

    /// Adds the terms of one vector of each input; `origin` is shift and scale.
    fn add<S: Isa>(inputs: [Lanes<S, R>; N], origin: [Lanes<S, R>; 2], sums: [Lanes<S, R>; K]) -> [Lanes<S, R>; K];

    /// What the sums say of a set; `record` keeps two numbers per channel of it, if anything is recorded.
    fn finish(&self, set: Summed<'_, R, K>, record: &mut [[f64; 2]]) -> Outcome<R>;

    /// [`finish`](Self::finish) and [`constants`](Self::constants) for sets of one channel each, in one loop that takes
    /// several at a time. Answers `false` if one of them is for `finish` to judge; whatever is in `to` and in `record` then
    /// says nothing.
    fn finish_channels(&self, sets: Channels<'_, R, K>, record: &mut [[f64; 2]], to: [&mut [R]; P]) -> bool;

    /// The constants of the map for the channels of a set from `first` on, as many as there are places in `to`. Answers
    /// whether they are as good as two multiplications one after the other: if not, the set must be gathered.
    fn constants(&self, set: &[f64; SET], first: usize, to: [&mut [R]; P]) -> bool;

    /// The map.
    fn compute<S: Isa>(inputs: [Lanes<S, R>; N], constants: [Lanes<S, R>; P]) -> Lanes<S, R>;
}
