//! E: epsilon.

use isonorm_kernels::abi::Dtype;

use super::{ALL, Bug, HALF, bug};
use crate::engine;
use crate::number::round;

pub const BUGS: &[Bug] = &[
    bug("E01", "layer_norm:forward", "f16,f16:f32", "DeepSpeed #581", "ε rounded to f16", |r| {
        r.eps = |eps, _| round(eps, Dtype::F16);
    }),
    bug("E03", "group_norm:forward", HALF, "pytorch #86580", "ε rounded to the data's type", |r| {
        r.eps = |eps, setting| round(eps, setting.data);
    }),
    bug("E04", "rms_norm:forward", ALL, "onnxruntime PR #3768", "ε always 1e-5", |r| r.eps = |_, _| 1e-5),
    bug("E05", "layer_norm:forward", ALL, "TIM-VX PR #589", "ε ignored", |r| r.eps = |_, _| 0.0),
    bug("E06", "group_norm:forward", ALL, "ggml (llama 8818)", "ε always 1e-6", |r| r.eps = |_, _| 1e-6),
    bug("E08", "l2_normalize:forward", ALL, "ggml (llama 20350)", "norm + ε", |r| {
        r.scale = |spread, setting| spread.sqrt() + setting.eps;
    }),
    bug("E08b", "l2_normalize:forward", ALL, "pytorch #32137", "√max(Σx², ε)", |r| {
        r.scale = |spread, setting| spread.max(setting.eps).sqrt();
    }),
    bug("E08c", "l2_normalize:forward", ALL, "variant", "√(Σx² + ε²)", |r| {
        r.scale = |spread, setting| (spread + setting.eps.square()).sqrt();
    }),
    bug("E10", "batch_norm:forward", ALL, "TensorFlow #8090", "ε at least 1e-5", |r| r.eps = |eps, _| eps.max(1e-5)),
    bug("E12", "batch_norm_inference:forward", ALL, "TPlinker #37", "no root", |r| {
        r.scale = |spread, setting| (spread + setting.eps).recip();
    }),
    bug("E13", "add_rms_norm:forward", ALL, "Megatron-Bridge PR #5712", "1e-5 where 1e-6 was asked", |r| {
        r.eps = |eps, _| if eps == 1e-6 { 1e-5 } else { eps };
    }),
    bug("E14", "rms_norm:forward", ALL, "flashinfer PR #477", "Σx² / (n + ε)", |r| {
        r.statistics = |row| {
            let total = row.sum(|x| x.square());
            let spread = total / (row.setting().eps + row.x.len() as f64);
            engine::Statistics { centre: spread.like(0.0), spread }
        };
    }),
    bug("E15", "layer_norm:forward", ALL, "facts", "1 / (√var + ε)", |r| {
        r.scale = |spread, setting| (spread.sqrt() + setting.eps).recip();
    }),
    bug("E15b", "batch_norm_inference:forward", ALL, "variant", "1 / (√var + ε)", |r| {
        r.scale = |spread, setting| (spread.sqrt() + setting.eps).recip();
    }),
    bug("E16", "crms_norm:forward", ALL, "variant", "ε added twice", |r| r.eps = |eps, _| 2.0 * eps),
    bug("E17", "partial_rms_norm:forward", ALL, "variant", "ε squared", |r| r.eps = |eps, _| eps * eps),
    bug("E18", "instance_norm:forward", ALL, "variant", "max(var, ε)", |r| {
        r.scale = |spread, setting| spread.max(setting.eps).sqrt().recip();
    }),
    bug("E19", "rms_norm:backward", ALL, "variant", "ε ignored in backward", |r| r.eps = |_, _| 0.0),
    bug("E21", "batch_norm:backward", ALL, "variant", "ε always 1e-5 in backward", |r| r.eps = |_, _| 1e-5),
    bug("E22", "add_layer_norm:backward", ALL, "variant", "1 / (√var + ε) in backward", |r| {
        r.scale = |spread, setting| (spread.sqrt() + setting.eps).recip();
    }),
    bug("E24", "instance_norm:forward", "f32,f64", "pytorch PR #173039", "ε rounded to bf16 whatever the data", |r| {
        r.eps = |eps, _| round(eps, Dtype::Bf16);
    }),
    bug("E25", "add_rms_norm:backward", ALL, "variant", "ε at most 1", |r| r.eps = |eps, _| eps.min(1.0)),
    bug("E26", "group_norm:backward", "f64", "TIM-VX PR #589", "ε passed as f32", |r| {
        r.eps = |eps, _| round(eps, Dtype::F32);
    }),
    bug("E23", "layer_norm:forward", ALL, "tt-metal #55347", "ε dropped for a single row", |r| {
        r.eps = |eps, setting| if setting.geometry.outer == 1 { 0.0 } else { eps };
    }),
];
