//! Batch normalization, inference.
//!
//! `y = (x - running_mean) / sqrt(running_var + eps) * weight + bias`. Backward, the statistics are constants.
//!
//! **Shapes.** `x`, `y`: `[n, c, s..]`; `running_mean`, `running_var`: `[c]`; `weight`, `bias`: `[c]`, each optional.
//!
//! **Dtypes.** As for `batch_norm`.
//!
//! **Special values.** As the formula has them, element by element: an infinity stays one.
//!
//! **Errors.** Sizes, types or attributes that do not fit are refused, by name.
//!
//! **Source.** Ioffe, Szegedy: Batch Normalization, arXiv:1502.03167.

use std::ops::Range;

use super::forward::affine;
use super::stages::{Channels, Origin, Outcome, SET, Stages, Summed, rounded};
use super::{Division, Parameters, SetKernel, Sets, run, write_params};
use crate::abi::{Call, Refusal};
use crate::cpu::arguments::{Param, for_data_type, running};
use crate::simd::{self, Element, InstructionSet, Isa, Lanes, Real, Sink, Source, Task, map, sum};

/// `x`, `weight`?, `bias`?, `running_mean`, `running_var` -> `y`
///
/// # Errors
/// See the module.
pub fn forward(call: &Call<'_>) -> Result<(), Refusal> {
    for_data_type!(call, forward_typed)
}

/// `dy`, `x`, `weight`?, `bias`?, `running_mean`, `running_var` -> `dx`, `dweight`?, `dbias`?
///
/// # Errors
/// See the module.
pub fn backward(call: &Call<'_>) -> Result<(), Refusal> {
    for_data_type!(call, backward_typed)
}

/// The statistics, per channel.
struct Inference<'a, R: Real> {
    parameters: &'a Parameters<'a, R>,
    mean: Param<'a, R>,
    rstd: Vec<R>,
    /// `weight * rstd`, rounded once.
    factor: Vec<R>,
    /// Whether all factors have all their digits.
    fits: bool,
}

impl<'a, R: Real> Inference<'a, R> {
    fn new<D: Element<Real = R>>(call: &Call<'a>, sets: &'a Sets<'a, R>) -> Result<Self, Refusal> {
        let channels = sets.channels as i64;
        let read = |name| running::<D>(name, &call.required_input(name)?, channels);
        let mut inference = Inference {
            parameters: &sets.parameters,
            mean: read("running_mean")?,
            rstd: vec![R::default(); sets.channels],
            factor: vec![R::default(); sets.channels],
            fits: true,
        };
        let variance = read("running_var")?;
        let variance = variance.source();
        simd::run(InstructionSet::current(), Factors { inference: &mut inference, variance });
        Ok(inference)
    }
}

/// Finds the factors of all channels.
struct Factors<'a, 'b, R: Real> {
    inference: &'b mut Inference<'a, R>,
    variance: Source<'b, R>,
}

impl<R: Real> Task for Factors<'_, '_, R> {
    #[inline(always)]
    fn run<S: Isa>(self, _: S) {
        let Inference { parameters, rstd, factor, fits, .. } = self.inference;
        let count = rstd.len();
        let factor = &mut factor[..count];
        let (variance, _) = self.variance.split_at(count);
        let [weight, _] = parameters.of(0, count);
        let mut all = true;
        for i in 0..count {
            let exact = 1.0 / (variance.get(i).to_f64() + parameters.eps).sqrt();
            let weight = weight.get(i).to_f64();
            let (rounded, fit) = rounded(weight * exact, weight);
            (rstd[i], factor[i]) = (R::from_f64(exact), rounded);
            all &= fit;
        }
        *fits = all;
    }
}

/// A set is a channel of one sample.
fn sets<'a, D: Element>(call: &'a Call<'a>) -> Result<Sets<'a, D::Real>, Refusal> {
    Sets::new::<D>(call, Division::Groups)
}

fn forward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let sets = sets::<D>(call)?;
    run(&sets, &[sets.input::<D>("x")?], &sets.output("y")?, &Inference::new::<D>(call, &sets)?);
    Ok(())
}

impl<R: Real> Stages<R, 1, 0, 3> for Inference<'_, R> {
    const WAITS: bool = false;

    fn fits(&self) -> bool {
        self.fits
    }

    #[inline(always)]
    fn add<S: Isa>(_: [Lanes<S, R>; 1], _: [Lanes<S, R>; 2], sums: [Lanes<S, R>; 0]) -> [Lanes<S, R>; 0] {
        sums
    }

    #[inline(always)]
    fn finish(&self, _: Summed<'_, R, 0>, _: &mut [[f64; 2]]) -> Outcome<R> {
        Outcome::Ready([0.0; SET])
    }

    #[inline(always)]
    fn finish_channels(&self, sets: Channels<'_, R, 0>, _: &mut [[f64; 2]], to: [&mut [R]; 3]) -> bool {
        Stages::<R, 1, 0, 3>::constants(self, &[0.0; SET], sets.first, to)
    }

    #[inline(always)]
    fn constants(&self, _: &[f64; SET], first: usize, [mean, factor, term]: [&mut [R]; 3]) -> bool {
        let count = mean.len();
        let (all, term) = (self.mean.source().part(first..first + count), &mut term[..count]);
        let [_, bias] = self.parameters.of(first, count);
        for i in 0..count {
            (mean[i], term[i]) = (all.get(i), bias.get(i));
        }
        factor.copy_from_slice(&self.factor[first..first + count]);
        true
    }

    #[inline(always)]
    fn compute<S: Isa>([x]: [Lanes<S, R>; 1], constants: [Lanes<S, R>; 3]) -> Lanes<S, R> {
        affine(x, constants)
    }
}

impl<D: Element> SetKernel<D, 1> for Inference<'_, D::Real> {
    const RECORDS: bool = false;

    #[inline(always)]
    fn set<S: Isa>(
        &self,
        simd: S,
        _: &mut Vec<D::Real>,
        channels: Range<usize>,
        [x]: [Source<'_, D>; 1],
        y: Sink<'_, D>,
        _: &mut [[f64; 2]],
    ) {
        let channel = channels.start;
        let [mean, rstd] = [self.mean.source().get(channel), self.rstd[channel]].map(|value| Lanes::splat(simd, value));
        let (weight, bias) = (self.parameters.weight(simd, channel), self.parameters.bias(simd, channel));
        map(simd, x, y, |x| ((x - mean) * rstd).mul_add(weight, bias));
    }
}

fn backward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let sets = sets::<D>(call)?;
    let params = sets.param_outputs()?;
    let inputs = [sets.input::<D>("dy")?, sets.input("x")?];
    let record = run(&sets, &inputs, &sets.output("dx")?, &Inference::new::<D>(call, &sets)?);
    write_params(&sets, params, &record)
}

impl<R: Real> Stages<R, 2, 2, 1> for Inference<'_, R> {
    const WAITS: bool = false;
    const BY_CHANNEL: bool = true;

    fn fits(&self) -> bool {
        self.fits
    }

    /// The sums are taken of `x_hat`.
    fn origin(&self, channel: usize) -> Option<Origin<R>> {
        Some(Origin { shift: self.mean.source().get(channel), scale: self.rstd[channel] })
    }

    #[inline(always)]
    fn add<S: Isa>(
        [dy, x]: [Lanes<S, R>; 2],
        [mean, rstd]: [Lanes<S, R>; 2],
        [dweight, dbias]: [Lanes<S, R>; 2],
    ) -> [Lanes<S, R>; 2] {
        [dy.mul_add((x - mean) * rstd, dweight), dbias + dy]
    }

    #[inline(always)]
    fn finish(&self, set: Summed<'_, R, 2>, record: &mut [[f64; 2]]) -> Outcome<R> {
        for (i, record) in record.iter_mut().enumerate() {
            *record = [set.parts[0][i], set.parts[1][i]];
        }
        Outcome::Ready([0.0; SET])
    }

    #[inline(always)]
    fn finish_channels(&self, sets: Channels<'_, R, 2>, record: &mut [[f64; 2]], to: [&mut [R]; 1]) -> bool {
        let sets = sets.checked(record.len());
        let [dweight, dbias] = sets.sums;
        for (i, record) in record.iter_mut().enumerate() {
            *record = [dweight[i], dbias[i]];
        }
        Stages::<R, 2, 2, 1>::constants(self, &[0.0; SET], sets.first, to)
    }

    #[inline(always)]
    fn constants(&self, _: &[f64; SET], first: usize, [to]: [&mut [R]; 1]) -> bool {
        to.copy_from_slice(&self.factor[first..first + to.len()]);
        true
    }

    #[inline(always)]
    fn compute<S: Isa>([dy, _]: [Lanes<S, R>; 2], [factor]: [Lanes<S, R>; 1]) -> Lanes<S, R> {
        dy * factor
    }
}

impl<D: Element> SetKernel<D, 2> for Inference<'_, D::Real> {
    /// `dx = dy * weight * rstd`, `dweight = sum(dy * x_hat)`, `dbias = sum(dy)`.
    #[inline(always)]
    fn set<S: Isa>(
        &self,
        simd: S,
        _: &mut Vec<D::Real>,
        channels: Range<usize>,
        [dy, x]: [Source<'_, D>; 2],
        dx: Sink<'_, D>,
        record: &mut [[f64; 2]],
    ) {
        let channel = channels.start;
        let [mean, rstd] = [self.mean.source().get(channel), self.rstd[channel]].map(|value| Lanes::splat(simd, value));
        let weight = self.parameters.weight(simd, channel);
        record[0] =
            sum(simd, (dy, x), |(dy, x), [dweight, dbias]| [dy.mul_add((x - mean) * rstd, dweight), dbias + dy]);
        map(simd, dy, dx, |dy| (dy * weight) * rstd);
    }
}
