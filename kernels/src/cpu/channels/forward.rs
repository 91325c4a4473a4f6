//! Normalization by a set's own moments, forward.

use std::ops::Range;

use super::stages::{Located, Outcome, SET, Stages, Summed};
use super::{Parameters, SetKernel};
use crate::cpu::moments::{Attempt, Moments, Scaling, attempt};
use crate::simd::{Element, Isa, Lanes, Real, Sink, Source, map};

/// Normalization by a set's own moments, forward: records mean and biased variance of the set with its first chunk.
pub struct Forward<'a, R>(pub &'a Parameters<'a, R>);

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
        attempt(simd, x, self.0.eps, room, ForwardSet { parameters: self.0, channels, y, record });
    }
}

impl<R: Real> Stages<R, 1, 2, 5> for Forward<'_, R> {
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
        match Located::new(&set, self.0.eps, false) {
            Ok(located) => {
                record[0] = [located.mean, located.variance];
                Outcome::Ready([located.hi, located.rstd, located.correction, R::default(), R::default()])
            }
            Err(outcome) => outcome,
        }
    }

    #[inline(always)]
    fn constants(&self, &[hi, rstd, correction, ..]: &[R; SET], channel: usize) -> [R; 5] {
        [hi, rstd, correction, self.0.weight.source().get(channel), self.0.bias.source().get(channel)]
    }

    #[inline(always)]
    fn compute<S: Isa>([x]: [Lanes<S, R>; 1], constants: [Lanes<S, R>; 5]) -> Lanes<S, R> {
        affine(x, constants)
    }
}

/// `((x - mean) * rstd + correction) * weight + bias`
///
/// The limit: four operations for a load and a store, at two a cycle; else bandwidth.
#[inline(always)]
pub fn affine<S: Isa, R: Real>(
    x: Lanes<S, R>,
    [mean, rstd, correction, weight, bias]: [Lanes<S, R>; 5],
) -> Lanes<S, R> {
    (x - mean).mul_add(rstd, correction).mul_add(weight, bias)
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
