//! Normalization by a set's own moments, backward.

use std::ops::Range;

use super::stages::{Located, Outcome, SET, Stages, Summed};
use super::{Parameters, SetKernel, Weights};
use crate::cpu::moments::{Attempt, Moments, Scaling, Total, attempt};
use crate::simd::{Element, Isa, Lanes, Real, Sink, Source, map, sum};

/// Normalization by a set's own moments, backward: records each chunk's share of `dweight` and `dbias`.
pub struct Backward<'a, R> {
    parameters: &'a Parameters<'a, R>,
    weights: Weights,
}

impl<'a, R: Real> Backward<'a, R> {
    /// With the parameters of a call.
    pub fn new(parameters: &'a Parameters<'a, R>) -> Self {
        Backward { parameters, weights: Weights::new(parameters) }
    }
}

impl<D: Element> SetKernel<D, 2> for Backward<'_, D::Real> {
    #[inline(always)]
    fn set<S: Isa>(
        &self,
        simd: S,
        room: &mut Vec<D::Real>,
        channels: Range<usize>,
        [dy, x]: [Source<'_, D>; 2],
        dx: Sink<'_, D>,
        record: &mut [[f64; 2]],
    ) {
        attempt(
            simd,
            x,
            self.parameters.eps,
            room,
            BackwardSet { parameters: self.parameters, channels, dy, dx, record },
        );
    }
}

impl<R: Real> Stages<R, 2, 4, 4> for Backward<'_, R> {
    const BY_CHANNEL: bool = true;
    const SCALES: bool = true;

    #[inline(always)]
    fn add<S: Isa>(
        [dy, x]: [Lanes<S, R>; 2],
        [shift, scale]: [Lanes<S, R>; 2],
        [sum, squares, dbias, dweight]: [Lanes<S, R>; 4],
    ) -> [Lanes<S, R>; 4] {
        let d = (x - shift) * scale;
        [sum + d, d.mul_add(d, squares), dbias + dy, dy.mul_add(d, dweight)]
    }

    #[inline(always)]
    fn finish(&self, set: Summed<'_, R, 4>, record: &mut [[f64; 2]]) -> Outcome<R> {
        let located = match Located::new(&set, self.parameters.eps, true) {
            Ok(located) => located,
            Err(outcome) => return outcome,
        };
        let rstd = located.rstd;
        if !self.weights.fit::<R>(rstd) {
            return Outcome::Gather;
        }
        let scaled = rstd / set.origin.scale.to_f64();
        let (mut a, mut b) = (Total::default(), Total::default());
        for ((&[_, _, dbias, dot], record), channel) in set.parts.iter().zip(record).zip(set.channels.clone()) {
            let dweight = (dot - located.delta * dbias) * scaled;
            if !dweight.is_finite() {
                // Whether it is, shows when x_hat is known.
                return Outcome::Gather;
            }
            *record = [dweight, dbias];
            let weight = self.parameters.weight.source().get(channel).to_f64();
            a.add(weight * dbias);
            b.add(weight * dweight);
        }
        // dx = (g - mean(g) - x_hat * mean(g * x_hat)) * rstd, with g = dy * weight, put in order of dy and x - hi.
        let slope = b.get() * set.share * rstd;
        let factor = slope * rstd;
        let term = located.lo * factor - a.get() * set.share * rstd;
        let is_normal = |value: f64| R::from_f64(value).to_f64().abs() >= R::LEAST;
        if !term.is_finite() || (is_normal(slope) && !is_normal(factor)) || !R::from_f64(factor).to_f64().is_finite() {
            return Outcome::Gather;
        }
        Outcome::Ready([located.hi, -factor, term, rstd])
    }

    #[inline(always)]
    fn constants(&self, &[hi, factor, term, rstd]: &[f64; SET], first: usize, to: &mut [Vec<R>; 4], at: Range<usize>) {
        let [weight, _] = self.parameters.of(first, at.len());
        for (i, at) in at.enumerate() {
            let values = [hi, factor, term, weight.get(i).to_f64() * rstd];
            for (to, value) in to.iter_mut().zip(values) {
                to[at] = R::from_f64(value);
            }
        }
    }

    /// The limit: two loads and a store; else bandwidth.
    #[inline(always)]
    fn compute<S: Isa>([dy, x]: [Lanes<S, R>; 2], [hi, factor, term, weight]: [Lanes<S, R>; 4]) -> Lanes<S, R> {
        dy.mul_add(weight, (x - hi).mul_add(factor, term))
    }
}

struct BackwardSet<'a, D: Element> {
    parameters: &'a Parameters<'a, D::Real>,
    channels: Range<usize>,
    dy: Source<'a, D>,
    dx: Sink<'a, D>,
    record: &'a mut [[f64; 2]],
}

impl<R: Real, D: Element<Real = R>> Attempt<R> for BackwardSet<'_, D> {
    /// `dx = (g - mean(g) - x_hat * mean(g * x_hat)) * rstd` with `g = dy * weight`.
    #[inline(always)]
    fn attempt<S: Isa, E: Element<Real = R>>(&mut self, simd: S, x: Source<'_, E>, scaling: Scaling) -> bool {
        let moments = Moments::new(simd, x, scaling.eps);
        if !scaling.accepts::<R>(moments.variance) {
            return false;
        }
        let n = x.len() as f64;
        let size = x.len() / self.channels.len();
        let x_hat = moments.normalized(simd);
        let (mut a, mut b) = (Total::default(), Total::default());
        let (mut x_left, mut dy_left) = (x, self.dy);
        for (channel, record) in self.channels.clone().zip(self.record.iter_mut()) {
            let (x_chunk, x_rest) = x_left.split_at(size);
            let (dy_chunk, dy_rest) = dy_left.split_at(size);
            let [dbias, dweight] = sum(simd, (dy_chunk, x_chunk), |(dy, x), [a, b]| [a + dy, dy.mul_add(x_hat(x), b)]);
            *record = [dweight, dbias];
            let weight = self.parameters.weight.source().get(channel).to_f64();
            a.add(weight * dbias);
            b.add(weight * dweight);
            (x_left, dy_left) = (x_rest, dy_rest);
        }
        let splat = |value| Lanes::splat(simd, R::from_f64(value));
        let (a, b, scale) = (splat(a.get() / n), splat(b.get() / n), splat(moments.rstd.to_f64() * scaling.scale));
        let (mut x, mut dy, mut dx) = (x, self.dy, self.dx.reborrow());
        for channel in self.channels.clone() {
            let ((x_chunk, x_rest), (dy_chunk, dy_rest)) = (x.split_at(size), dy.split_at(size));
            let (dx_chunk, dx_rest) = dx.split_at(size);
            let weight = self.parameters.weight(simd, channel);
            map(simd, (dy_chunk, x_chunk), dx_chunk, |(dy, x)| ((dy * weight - a) - x_hat(x) * b) * scale);
            (x, dy, dx) = (x_rest, dy_rest, dx_rest);
        }
        true
    }
}
