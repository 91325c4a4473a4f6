//! Normalization by a set's own moments, forward.

use std::ops::Range;

use super::stages::{Located, Outcome, SET, Stages, Summed};
use super::{Parameters, SetKernel, Weights};
use crate::cpu::moments::{Attempt, Moments, Scaling, attempt};
use crate::simd::{Element, Isa, Lanes, Real, Sink, Source, map};

/// Normalization by a set's own moments, forward: records mean and biased variance of the set with its first chunk.
pub struct Forward<'a, R> {
    parameters: &'a Parameters<'a, R>,
    weights: Weights,
}

impl<'a, R: Real> Forward<'a, R> {
    /// With the parameters of a call.
    pub fn new(parameters: &'a Parameters<'a, R>) -> Self {
        Forward { parameters, weights: Weights::new(parameters) }
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
            Ok(located) if self.weights.fit::<R>(located.rstd) => {
                record[0] = [located.mean, located.variance];
                Outcome::Ready([located.hi, located.lo, located.rstd, 0.0])
            }
            Ok(_) => Outcome::Gather,
            Err(outcome) => outcome,
        }
    }

    #[inline(always)]
    fn constants(&self, &[hi, lo, rstd, _]: &[f64; SET], first: usize, to: &mut [Vec<R>; 3], at: Range<usize>) {
        let [mean, factors, terms] = to;
        let (mean, factors, terms) = (&mut mean[at.clone()], &mut factors[at.clone()], &mut terms[at]);
        let hi = R::from_f64(hi);
        let [weight, bias] = self.parameters.of(first, mean.len());
        for (i, ((to_mean, to_factor), to_term)) in mean.iter_mut().zip(factors).zip(terms).enumerate() {
            let (factor, bias) = (weight.get(i).to_f64() * rstd, bias.get(i).to_f64());
            *to_mean = hi;
            *to_factor = R::from_f64(factor);
            // Where nothing was lost, -0 stays what it is.
            *to_term = R::from_f64(if lo == 0.0 { bias } else { bias - lo * factor });
        }
    }

    #[inline(always)]
    fn compute<S: Isa>([x]: [Lanes<S, R>; 1], constants: [Lanes<S, R>; 3]) -> Lanes<S, R> {
        affine(x, constants)
    }
}

/// `(x - mean) * factor + term`, where `factor` is `weight / sqrt(variance + eps)`, and `term` the bias and what rounding
/// the mean lost: fewer roundings than one operation after the other, as long as the factor is a normal number (see
/// [`Weights`]).
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
