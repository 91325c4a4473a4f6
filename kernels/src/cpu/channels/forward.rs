//! Normalization by a set's own moments, forward.

use std::ops::Range;

use super::stages::{Channels, Located, Outcome, SET, Stages, Summed, rounded};
use super::{Parameters, SetKernel};
use crate::cpu::moments::{Attempt, Moments, Scaling, attempt};
use crate::simd::{Element, Isa, Lanes, Real, Sink, Source, map};

/// Normalization by a set's own moments, forward: records mean and biased variance of the set with its first chunk.
pub struct Forward<'a, R: Real> {
    parameters: &'a Parameters<'a, R>,
}

impl<'a, R: Real> Forward<'a, R> {
    /// With the parameters of a call.
    pub fn new(parameters: &'a Parameters<'a, R>) -> Self {
        Forward { parameters }
    }
}

impl<D: Element> SetKernel<D, 1> for Forward<'_, D::Real> {
    #[inline(always)]
    fn set<S: Isa>(
        &self,
        simd: S,
        room: &mut Vec<D::Real>,
        channels: Range<usize>,
        [x]: [Source<'_, D>; 1],
        y: Sink<'_, D>,
        record: &mut [[f64; 2]],
    ) {
        attempt(simd, x, self.parameters.eps, room, ForwardSet { parameters: self.parameters, channels, y, record });
    }
}

impl<R: Real> Stages<R, 1, 2, 3> for Forward<'_, R> {
    #[inline(always)]
    fn add<S: Isa>(
        [x]: [Lanes<S, R>; 1],
        [shift, _]: [Lanes<S, R>; 2],
        [sum, squares]: [Lanes<S, R>; 2],
    ) -> [Lanes<S, R>; 2] {
        let d = x - shift;
        [sum + d, d.mul_add(d, squares)]
    }

    #[inline(always)]
    fn finish(&self, set: Summed<'_, R, 2>, record: &mut [[f64; 2]]) -> Outcome<R> {
        match Located::new(&set, self.parameters.eps, false) {
            Ok(located) => {
                record[0] = [located.mean, located.variance];
                Outcome::Ready([located.hi, located.lo, located.rstd, 0.0])
            }
            Err(outcome) => outcome,
        }
    }

    #[inline(always)]
    fn finish_channels(&self, sets: Channels<'_, R, 2>, record: &mut [[f64; 2]], to: [&mut [R]; 3]) -> bool {
        let count = record.len();
        let sets = sets.checked(count);
        let [mean, factor, term] = to;
        let (mean, factor, term) = (&mut mean[..count], &mut factor[..count], &mut term[..count]);
        let [weight, bias] = self.parameters.of(sets.first, count);
        let mut all = true;
        for i in 0..count {
            let (located, suffices) = Located::at(&sets, i, self.parameters.eps, false);
            let (values, fits) = constants([located.hi, located.lo, located.rstd], weight.get(i), bias.get(i));
            record[i] = [located.mean, located.variance];
            [mean[i], factor[i], term[i]] = values;
            all &= suffices & fits;
        }
        all
    }

    #[inline(always)]
    fn constants(&self, &[hi, lo, rstd, _]: &[f64; SET], first: usize, to: [&mut [R]; 3]) -> bool {
        let [mean, factor, term] = to;
        let count = mean.len();
        let (factor, term) = (&mut factor[..count], &mut term[..count]);
        let [weight, bias] = self.parameters.of(first, count);
        let mut all = true;
        for i in 0..count {
            let (values, fits) = constants([hi, lo, rstd], weight.get(i), bias.get(i));
            [mean[i], factor[i], term[i]] = values;
            all &= fits;
        }
        all
    }

    #[inline(always)]
    fn compute<S: Isa>([x]: [Lanes<S, R>; 1], constants: [Lanes<S, R>; 3]) -> Lanes<S, R> {
        affine(x, constants)
    }
}

/// Mean, factor and term of [`affine`], and whether the factor is a normal number.
#[inline(always)]
fn constants<R: Real>([hi, lo, rstd]: [f64; 3], weight: R, bias: R) -> ([R; 3], bool) {
    let (weight, bias) = (weight.to_f64(), bias.to_f64());
    let exact = weight * rstd;
    let (factor, fits) = rounded(exact, weight);
    // Where nothing was lost, -0 stays what it is.
    let term = if lo == 0.0 { bias } else { bias - lo * exact };
    ([R::from_f64(hi), factor, R::from_f64(term)], fits)
}

/// `(x - mean) * factor + term`, where `factor` is `weight / sqrt(variance + eps)`, and `term` the bias and what rounding
/// the mean lost: fewer roundings than one operation after the other, as long as the factor is a normal number.
///
/// The limit: a load and a store; else bandwidth.
#[inline(always)]
pub fn affine<S: Isa, R: Real>(x: Lanes<S, R>, [mean, factor, term]: [Lanes<S, R>; 3]) -> Lanes<S, R> {
    (x - mean).mul_add(factor, term)
}

struct ForwardSet<'a, D: Element> {
    parameters: &'a Parameters<'a, D::Real>,
    channels: Range<usize>,
    y: Sink<'a, D>,
    record: &'a mut [[f64; 2]],
}

impl<D: Element> Attempt<D::Real> for ForwardSet<'_, D> {
    #[inline(always)]
    fn attempt<S: Isa, E: Element<Real = D::Real>>(&mut self, simd: S, x: Source<'_, E>, scaling: Scaling) -> bool {
        let moments = Moments::new(simd, x, scaling.eps);
        if !scaling.accepts::<D::Real>(moments.variance) {
            return false;
        }
        self.record[0] = [moments.mean / scaling.scale, moments.variance / scaling.scale / scaling.scale];
        let size = x.len() / self.channels.len();
        let normalized = moments.normalized(simd);
        let (mut x, mut y) = (x, self.y.reborrow());
        for channel in self.channels.clone() {
            let (x_chunk, x_rest) = x.split_at(size);
            let (y_chunk, y_rest) = y.split_at(size);
            let (weight, bias) = (self.parameters.weight(simd, channel), self.parameters.bias(simd, channel));
            map(simd, x_chunk, y_chunk, |x| normalized(x).mul_add(weight, bias));
            (x, y) = (x_rest, y_rest);
        }
        true
    }
}
