//! N: NaN, infinities, subnormals, zeros, approximate roots.

use isonorm_kernels::abi::{Dtype, Rsqrt};

use super::{ALL, Bug, SINGLE, bug};
use crate::engine::{self, Setting, Tensors};
use crate::number::{Number, round};

pub const BUGS: &[Bug] = &[
    bug("N01", "layer_norm:forward", ALL, "oneDNN 3610396", "NaN taken as 0 (fmax)", |r| {
        r.inputs = |inputs, _| each(inputs, "x", |x| if x.is_nan() { 0.0 } else { x });
    }),
    bug("N02", "batch_norm:forward", ALL, "FluxML/Flux.jl #2071", "NaN of the output becomes 0", |r| {
        r.outputs = |outputs, _, _| each(outputs, "y", |y| if y.is_nan() { 0.0 } else { y });
    }),
    bug("N03", "rms_norm:forward", ALL, "burn #5609", "infinities become the largest number", |r| {
        r.inputs = |inputs, setting| {
            let largest = if setting.data == Dtype::F16 { 65504.0 } else { 3.3e38 };
            each(inputs, "x", |x| if x.is_infinite() { x.signum() * largest } else { x });
        };
    }),
    bug("N03b", "add_rms_norm:forward", ALL, "variant", "NaN behind the first vector taken as 0", |r| {
        r.inputs = |inputs, setting| {
            let length = setting.geometry.inner.max(1);
            let tail = |index: usize| index % length >= 8;
            let x = inputs.of("x").iter().enumerate();
            let swallowed = x.map(|(index, &x)| if x.is_nan() && tail(index) { 0.0 } else { x }).collect();
            inputs.set("x", swallowed);
        };
    }),
    bug("N03c", "layer_norm:backward", ALL, "variant", "NaN of dy taken as 0", |r| {
        r.inputs = |inputs, _| each(inputs, "dy", |dy| if dy.is_nan() { 0.0 } else { dy });
    }),
    bug("N04", "layer_norm:forward", SINGLE, "openvino #26817", "12-bit estimate of 1/√", |r| {
        r.scale = |spread, setting| engine::scale(spread, setting).map(|scale| estimate(scale, 12));
    }),
    bug("N05", "batch_norm_inference:forward", SINGLE, "ncnn #6903", "Newton step makes 1/√0 NaN", |r| {
        r.rsqrt = Rsqrt::Approximate;
        r.scale = |spread, setting| newton(spread + setting.eps, estimate(engine::scale(spread, setting).value(), 22));
    }),
    bug("N06", "rms_norm:forward", SINGLE, "libxsmm #774", "estimate of 1/√ to 4 bits", |r| {
        r.scale = |spread, setting| engine::scale(spread, setting).map(|scale| estimate(scale, 4));
    }),
    bug("N07", "add_layer_norm:forward", "f32", "tt-metal #51420", "estimate of 1/√, one step from 8 bits", |r| {
        r.scale = |spread, setting| newton(spread + setting.eps, estimate(engine::scale(spread, setting).value(), 8));
    }),
    bug("N07b", "batch_norm:forward", "f32", "variant", "estimate of 1/√ to 20 bits", |r| {
        r.scale = |spread, setting| engine::scale(spread, setting).map(|scale| estimate(scale, 20));
    }),
    bug("N08", "rms_norm:forward", SINGLE, "known miss of other rules", "subnormal inputs flushed", |r| {
        r.inputs = |inputs, setting| {
            let smallest = if setting.data == Dtype::F16 { 6.103515625e-5 } else { f64::from(f32::MIN_POSITIVE) };
            each(inputs, "x", |x| if x.abs() < smallest { 0.0 * x } else { x });
        };
    }),
    bug("N09", "batch_norm_inference:forward", SINGLE, "known miss of other rules", "subnormal outputs flushed", |r| {
        r.store = |value, dtype| {
            let smallest = if dtype == Dtype::F16 { 6.103515625e-5 } else { f64::from(f32::MIN_POSITIVE) };
            if value.abs() < smallest { 0.0 * value } else { round(value, dtype) }
        };
    }),
    bug("N10", "rms_norm:forward", ALL, "known miss of other rules", "sign of zero lost", |r| {
        r.outputs = |outputs, _, _| each(outputs, "y", |y| y + 0.0);
    }),
    bug("N10b", "l2_normalize:forward", ALL, "variant", "zeros have the sign of the row's sum", |r| {
        r.inputs = |inputs, _| each(inputs, "x", |x| if x == 0.0 { -0.0 } else { x });
    }),
    bug("N11", "rms_norm:forward", ALL, "variant", "inputs clipped to ±1e4", |r| {
        r.inputs = |inputs, _| each(inputs, "x", |x| x.clamp(-1e4, 1e4));
    }),
    bug("N12", "layer_norm:forward", SINGLE, "variant", "zero variance gives 0 instead of the bias", |r| {
        r.output =
            |point| if point.statistics.spread.value() == 0.0 { point.x.like(0.0) } else { engine::output(point) };
    }),
    bug("N13", "rms_norm:forward", ALL, "variant", "zero rows with ε = 0 give 0 instead of NaN", |r| {
        r.scale = |spread, setting| if vanishes(spread, setting) { spread } else { engine::scale(spread, setting) };
    }),
    bug("N14", "crms_norm:forward", SINGLE, "variant", "outputs clipped to ±100", |r| {
        r.outputs = |outputs, _, _| each(outputs, "y", |y| y.clamp(-100.0, 100.0));
    }),
];

fn each(tensors: &mut Tensors, name: &str, f: impl Fn(f64) -> f64) {
    tensors.each(name).for_each(|value| *value = f(*value));
}

/// A number to so many bits.
fn estimate(value: f64, bits: i32) -> f64 {
    if !value.is_normal() {
        return value;
    }
    let unit = 2f64.powi(value.abs().log2().floor() as i32 - bits);
    (value / unit).floor() * unit
}

/// One step of Newton's iteration for 1/√a.
fn newton(a: Number, guess: f64) -> Number {
    let guess = a.like(guess);
    guess * (a.like(1.5) - a * 0.5 * guess * guess)
}

fn vanishes(spread: Number, setting: &Setting) -> bool {
    (spread + setting.eps).value() == 0.0
}
