//! Normalization by a set's own moments, backward.

use std::ops::Range;

use super::stages::{Channels, Located, Outcome, SET, Stages, Summed, inverse, rounded};
use super::{Parameters, SetKernel};
use crate::cpu::moments::{Attempt, Moments, Scaling, Total, attempt};
use crate::simd::{Element, Isa, Lanes, Real, Sink, Source, map, sum};

/// Normalization by a set's own moments, backward: records each chunk's share of `dweight` and `dbias`.
pub struct Backward<'a, R: Real> {
    parameters: &'a Parameters<'a, R>,
}

impl<'a, R: Real> Backward<'a, R> {
    /// With the parameters of a call.
    pub fn new(parameters: &'a Parameters<'a, R>) -> Self {
        Backward { parameters }
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
        let [_, _, dbias, dot] = set.parts;
        let (mut a, mut b) = (Total::default(), Total::default());
        let mut fits = true;
        for (i, (record, channel)) in record.iter_mut().zip(set.channels.clone()).enumerate() {
            let dweight = dweight(&located, set.origin.scale, dot[i], dbias[i]);
            // Whether it is finite, shows when x_hat is known.
            fits &= dweight.is_finite();
            *record = [dweight, dbias[i]];
            let weight = self.parameters.weight.source().get(channel).to_f64();
            a.add(weight * dbias[i]);
            b.add(weight * dweight);
        }
        let (set, fit) = slopes::<R>(&located, a.get() * set.share, b.get() * set.share);
        if fits & fit { Outcome::Ready(set) } else { Outcome::Gather }
    }

    #[inline(always)]
    fn finish_channels(&self, sets: Channels<'_, R, 4>, record: &mut [[f64; 2]], to: [&mut [R]; 4]) -> bool {
        let count = record.len();
        let sets = sets.checked(count);
        let [_, _, dbias, dot] = sets.sums;
        let [hi, factor, term, weights] = to;
        let (hi, factor, term, weights) =
            (&mut hi[..count], &mut factor[..count], &mut term[..count], &mut weights[..count]);
        let [weight, _] = self.parameters.of(sets.first, count);
        let mut all = true;
        for i in 0..count {
            let (located, suffices) = Located::at(&sets, i, self.parameters.eps, true);
            let weight = weight.get(i);
            let dweight = dweight(&located, sets.origins[1][i], dot[i], dbias[i]);
            // Totals of one part, which are never -0: bit by bit what `finish` has.
            let (a, b) = (0.0 + weight.to_f64() * dbias[i], 0.0 + weight.to_f64() * dweight);
            let (set, fits) = slopes::<R>(&located, a * sets.share, b * sets.share);
            let (values, fit) = constants(&set, weight);
            record[i] = [dweight, dbias[i]];
            [hi[i], factor[i], term[i], weights[i]] = values;
            all &= suffices & dweight.is_finite() & fits & fit;
        }
        all
    }

    #[inline(always)]
    fn constants(&self, set: &[f64; SET], first: usize, to: [&mut [R]; 4]) -> bool {
        let [hi, factor, term, weights] = to;
        let count = hi.len();
        let (factor, term, weights) = (&mut factor[..count], &mut term[..count], &mut weights[..count]);
        let [weight, _] = self.parameters.of(first, count);
        let mut all = true;
        for i in 0..count {
            let (values, fits) = constants(set, weight.get(i));
            [hi[i], factor[i], term[i], weights[i]] = values;
            all &= fits;
        }
        all
    }

    /// The limit: two loads and a store; else bandwidth.
    #[inline(always)]
    fn compute<S: Isa>([dy, x]: [Lanes<S, R>; 2], [hi, factor, term, weight]: [Lanes<S, R>; 4]) -> Lanes<S, R> {
        dy.mul_add(weight, (x - hi).mul_add(factor, term))
    }
}

/// `sum(dy * x_hat)`, from that of `dy * d`, and of `dy`.
#[inline(always)]
fn dweight<R: Real>(located: &Located, scale: R, dot: f64, dbias: f64) -> f64 {
    (dot - located.delta * dbias) * (located.rstd * inverse(scale.to_f64()))
}

/// `dx = (g - a - x_hat * b) * rstd`, with `g = dy * weight`, `a` its mean and `b` that of `g * x_hat`, put in order of
/// `dy` and `x - hi`; and whether all factors are as good.
#[inline(always)]
fn slopes<R: Real>(&Located { hi, lo, rstd, .. }: &Located, a: f64, b: f64) -> ([f64; SET], bool) {
    let slope = b * rstd;
    let factor = slope * rstd;
    let term = lo * factor - a * rstd;
    let size = |value: f64| R::from_f64(value).to_f64().abs();
    let fits = (size(slope) < R::LEAST) | (size(factor) >= R::LEAST);
    ([hi, -factor, term, rstd], fits & term.is_finite() & (size(factor) < f64::INFINITY))
}

/// The constants of one channel, and whether its weight is as good as two factors.
#[inline(always)]
fn constants<R: Real>(&[hi, factor, term, rstd]: &[f64; SET], weight: R) -> ([R; 4], bool) {
    let weight = weight.to_f64();
    let (weight, fits) = rounded(weight * rstd, weight);
    ([R::from_f64(hi), R::from_f64(factor), R::from_f64(term), weight], fits)
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
