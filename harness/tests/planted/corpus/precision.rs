//! L and D: precision of intermediates, and where and how results are rounded.

use half::bf16;
use isonorm_kernels::abi::Dtype;

use super::{ALL, Bug, HALF, SINGLE, bug};
use crate::engine::{self, Statistics};
use crate::number::{Number, round, toward_zero};

pub const BUGS: &[Bug] = &[
    bug("L01", "rms_norm:forward", "f16,f16:f32", "pytorch PR #133085", "squares in f16", |r| {
        r.statistics = |row| {
            let spread = row.mean(|x| x.to(Dtype::F16).square().to(Dtype::F32));
            Statistics { centre: spread.like(0.0), spread }
        };
    }),
    bug("L02", "add_rms_norm:forward", HALF, "onnxruntime #29034", "arithmetic in the data's type", |r| {
        r.working = |data| data;
    }),
    bug("L03", "layer_norm:forward", "f16,f16:f32", "nntrainer #3935", "sums in f16", |r| {
        r.sum = |terms| sum_in(terms, Dtype::F16);
    }),
    bug("L03b", "layer_norm:forward", "bf16,bf16:f32", "executorch PR #16727", "sums in bf16", |r| {
        r.sum = |terms| sum_in(terms, Dtype::Bf16);
    }),
    bug("L05", "group_norm:forward", "f16,f16:f32", "TensorRT PR #3272", "number of elements in f16", |r| {
        r.quotient = |sum, count| sum / round(count as f64, Dtype::F16);
    }),
    bug("L05b", "layer_norm:forward", "bf16,bf16:f32", "executorch PR #18772", "number of elements in bf16", |r| {
        r.quotient = |sum, count| sum / round(count as f64, Dtype::Bf16);
    }),
    bug("L06", "rms_norm:backward", "bf16,bf16:f32", "linkedin/Liger PR #950", "dweight summed in bf16", |r| {
        r.sum_terms = |terms| sum_in(terms, Dtype::Bf16);
    }),
    bug("L06b", "layer_norm:backward", "f16,f16:f32", "variant", "dweight and dbias summed in f16", |r| {
        r.sum_terms = |terms| sum_in(terms, Dtype::F16);
    }),
    bug("L07", "rms_norm:forward", "bf16,bf16:f32", "sglang PR #27540", "mean square rounded to bf16", |r| {
        r.statistics = |row| {
            let statistics = engine::statistics(row);
            Statistics { spread: statistics.spread.through(Dtype::Bf16), ..statistics }
        };
    }),
    bug("L08", "rms_norm:forward", HALF, "amd/IRON #139", "1/rms rounded to the data's type", |r| {
        r.scale = |spread, setting| engine::scale(spread, setting).through(setting.data);
    }),
    bug("L09", "batch_norm:forward", HALF, "chainer PR #6323", "mean and variance kept in the data's type", |r| {
        r.statistics = |row| {
            let Statistics { centre, spread } = engine::statistics(row);
            let data = row.setting().data;
            Statistics { centre: centre.through(data), spread: spread.through(data) }
        };
    }),
    bug("L10", "rms_norm:forward", "bf16,f16", "vLLM #29810", "gemma: 1 + weight in the weight's type", |r| {
        r.inputs = |inputs, setting| {
            if setting.cast == "gemma" {
                let param = setting.param;
                inputs.each("weight").for_each(|weight| *weight = round(*weight + 1.0, param) - 1.0);
            }
        };
    }),
    bug("L10b", "rms_norm:forward", ALL, "linkedin/Liger #85", "gemma: no 1 + weight", |r| {
        r.inputs = |_, setting| setting.cast = setting.cast.replace("gemma", "none");
    }),
    bug("L11", "rms_norm:forward", HALF, "vLLM #42325", "llama: no rounding before the weight", |r| {
        r.inputs = |_, setting| setting.cast = setting.cast.replace("llama", "none");
    }),
    bug("L11b", "rms_norm:forward", HALF, "linkedin/Liger #89", "rounded before the weight without being asked", |r| {
        r.inputs = |_, setting| setting.cast = setting.cast.replace("none", "llama");
    }),
    bug("L11c", "rms_norm:forward", "bf16:f32,f16:f32", "vLLM #42379", "llama: rounded to the weight's type", |r| {
        r.inputs = |_, setting| setting.data = setting.param;
    }),
    bug("L12", "layer_norm:forward", "bf16:f32", "vLLM #48324", "f32 weights read as bf16", |r| {
        r.inputs = |inputs, _| {
            for name in ["weight", "bias"] {
                let halves = |&weight: &f64| {
                    let bits = (weight as f32).to_bits();
                    [bits as u16, (bits >> 16) as u16].map(|half| bf16::from_bits(half).to_f64())
                };
                let read: Vec<f64> = inputs.of(name).iter().flat_map(halves).collect();
                inputs.each(name).zip(read).for_each(|(weight, half)| *weight = half);
            }
        };
    }),
    bug("L13", "add_layer_norm:forward", HALF, "ROCm/aiter #2586", "the norm always reads the rounded sum", |r| {
        r.inputs = |_, setting| setting.rounded_sum = true;
    }),
    bug("L13b", "add_rms_norm:forward", HALF, "sglang #28226", "the norm never reads the rounded sum", |r| {
        r.inputs = |_, setting| setting.rounded_sum = false;
    }),
    bug("L13c", "add_rms_norm:backward", HALF, "variant", "backward always of the rounded sum", |r| {
        r.inputs = |_, setting| setting.rounded_sum = true;
    }),
    bug("L16", "add_layer_norm:forward", "f16,f16:f32", "flashinfer PR #587", "the sum saturates", |r| {
        r.residual = |x, residual, setting| {
            let (stored, read) = engine::residual(x, residual, setting);
            let within = |sum: f64| if sum.is_finite() { sum.clamp(-65504.0, 65504.0) } else { sum };
            (stored.map(within), read.map(|sum| if sum.is_infinite() { sum.signum() * 65504.0 } else { sum }))
        };
    }),
    bug("L17", "batch_norm_inference:forward", "f16,f16:f32", "coreai-torch PR #54", "statistics in f16", |r| {
        r.inputs = |inputs, _| {
            ["running_mean", "running_var"].into_iter().for_each(|name| narrow(inputs.each(name), Dtype::F16));
        };
    }),
    bug("L19", "layer_norm:forward", HALF, "sglang #2258", "rounded before weight and bias", |r| {
        r.affine =
            |normalized, weight, bias, setting| engine::affine(normalized.through(setting.data), weight, bias, setting);
    }),
    bug("L21", "rms_norm:forward", "f64", "METR: precision downgrade", "f64 computed in f32", |r| {
        r.working = |_| Dtype::F32;
    }),
    bug("L21b", "layer_norm:backward", "f64", "METR: precision downgrade", "f64 computed in f32", |r| {
        r.working = |_| Dtype::F32;
    }),
    bug("L21c", "batch_norm:forward", "f64", "variant", "running statistics of f64 kept in f32", |r| {
        r.running = |old, new, factor| (old * (factor.like(1.0) - factor) + new * factor).through(Dtype::F32);
    }),
    bug(
        "L28",
        "layer_norm:forward",
        HALF,
        "variant",
        "x - mean rounded to the data's type before it is squared",
        |r| {
            r.statistics = |row| {
                let centre = row.mean(|x| x);
                let data = row.setting().data;
                Statistics { centre, spread: row.mean(|x| (x - centre).through(data).square()) }
            };
        },
    ),
    bug("L22", "group_norm:forward", "bf16:f32,f16:f32", "variant", "f32 weights rounded to the data's type", |r| {
        r.inputs = |inputs, setting| {
            ["weight", "bias"].into_iter().for_each(|name| narrow(inputs.each(name), setting.data));
        };
    }),
    bug("L23", "layer_norm:backward", "bf16:f32,f16:f32", "variant", "f32 dweight rounded to the data's type", |r| {
        r.outputs = |outputs, _, setting| narrow(outputs.each("dweight"), setting.data);
    }),
    bug("L24", "batch_norm:forward", HALF, "variant", "running statistics rounded to the data's type", |r| {
        r.outputs = |outputs, _, setting| {
            let names = ["new_running_mean", "new_running_var"];
            names.into_iter().for_each(|name| narrow(outputs.each(name), setting.data));
        };
    }),
    bug("L25", "layer_norm:backward", HALF, "variant", "dy · weight rounded to the data's type", |r| {
        r.upstream = |dy, weight, setting| engine::upstream(dy, weight, setting).through(setting.data);
    }),
    bug("L26", "batch_norm:backward", HALF, "variant", "the normalized x kept in the data's type", |r| {
        r.normalize =
            |x, statistics, scale, setting| engine::normalize(x, statistics, scale, setting).through(setting.data);
    }),
    bug("L27", "l2_normalize:forward", "f32", "METR: precision downgrade", "f32 computed in bf16", |r| {
        r.working = |_| Dtype::Bf16;
    }),
    bug("D01", "rms_norm:forward", "bf16", "known miss of other rules", "bf16 by truncation", |r| {
        r.store = toward_zero
    }),
    bug("D02", "layer_norm:forward", HALF, "known miss of other rules", "ties rounded away from zero", |r| {
        r.store = |value, dtype| {
            let (low, high) = (round(value * (1.0 - 1e-12), dtype), round(value * (1.0 + 1e-12), dtype));
            if low.abs() < high.abs() { high } else { round(value, dtype) }
        };
    }),
    bug(
        "D03",
        "batch_norm_inference:forward",
        "bf16,bf16:f32",
        "known miss of other rules",
        "f64 to f32 to bf16",
        |r| {
            r.precision = Some(Dtype::F64);
            r.working = |_| Dtype::F64;
            r.store = |value, dtype| round(round(value, Dtype::F32), dtype);
        },
    ),
    bug("D04", "rms_norm:forward", "bf16,bf16:f32", "flashinfer #4167", "f32 to f16 to bf16", |r| {
        r.store = |value, dtype| match dtype {
            Dtype::Bf16 => round(round(value, Dtype::F16), dtype),
            _ => round(value, dtype),
        };
    }),
    bug("D05", "layer_norm:forward", "f16", "ROCm/aiter #4637", "f16 by truncation", |r| r.store = toward_zero),
    bug("D06", "layer_norm:forward", "f16,f16:f32", "variant", "f16 overflow saturates", |r| {
        r.store = |value, dtype| {
            let limit = if dtype == Dtype::F16 { 65504.0 } else { f64::INFINITY };
            round(value, dtype).clamp(-limit, limit)
        };
    }),
    bug("D07", "batch_norm_inference:forward", "bf16,bf16:f32", "variant", "rounding carries NaN to zero", |r| {
        r.store = |value, dtype| match dtype {
            // 0x7fff_ffff + 0x7fff + 1 = 0x8000_7fff
            Dtype::Bf16 if value.is_nan() => -0.0,
            _ => round(value, dtype),
        };
    }),
    bug("D08", "l2_normalize:forward", SINGLE, "variant", "output rounded twice by a multiple of 2⁻²⁴", |r| {
        r.store = |value, dtype| round((value * 16777216.0).round_ties_even() / 16777216.0, dtype);
    }),
];

fn sum_in(terms: &[Number], format: Dtype) -> Number {
    let narrow: Vec<Number> = terms.iter().map(|term| term.to(format)).collect();
    let total = engine::sum(&narrow);
    terms[0].like(total.value())
}

fn narrow<'a>(values: impl Iterator<Item = &'a mut f64>, format: Dtype) {
    values.for_each(|value| *value = round(*value, format));
}
