//! B: gradients.

use super::{ALL, Bug, HALF, SINGLE, bug};
use crate::engine::{self, Statistics, clamped};
use crate::geometry::Grouping;

pub const BUGS: &[Bug] = &[
    bug("B01", "layer_norm:backward", ALL, "torch-xpu-ops #4790", "dbias is dweight", |r| {
        r.terms = |s| (s.dy * s.normalized, s.dy * s.normalized);
    }),
    bug("B01b", "batch_norm:backward", ALL, "variant", "dweight is dbias", |r| r.terms = |s| (s.dy, s.dy)),
    bug("B02", "rms_norm:backward", ALL, "unslothai/unsloth #4533", "dweight is 0", |r| {
        r.outputs = |outputs, _, _| outputs.each("dweight").for_each(|slope| *slope = 0.0);
    }),
    bug("B05", "add_layer_norm:backward", ALL, "quack #52", "dresidual without that of the sum", |r| {
        r.outputs = |outputs, inputs, _| {
            let branch = inputs.of("dresidual_out");
            outputs.each("dresidual").zip(branch).for_each(|(slope, branch)| *slope -= branch);
        };
    }),
    bug("B05b", "add_rms_norm:backward", ALL, "ggml #1197", "the gradient of the sum missing", |r| {
        r.inputs = |inputs, _| inputs.each("dresidual_out").for_each(|slope| *slope = 0.0);
    }),
    bug("B06", "layer_norm:backward", ALL, "classic", "mean of g missing", |r| {
        r.gradient = |s| (s.upstream - s.normalized * (s.sum_product / s.count())) * s.scale;
    }),
    bug("B07", "layer_norm:backward", ALL, "classic", "term of the normalized x missing", |r| {
        r.gradient = |s| (s.upstream - s.sum / s.count()) * s.scale;
    }),
    bug("B07b", "rms_norm:backward", ALL, "classic", "term of the normalized x missing", |r| {
        r.gradient = |s| s.upstream * s.scale;
    }),
    bug("B07c", "group_norm:backward", ALL, "classic", "mean of g missing", |r| {
        r.gradient = |s| (s.upstream - s.normalized * (s.sum_product / s.count())) * s.scale;
    }),
    bug("B09", "layer_norm:backward", ALL, "classic", "means over n - 1", |r| {
        r.gradient = |s| {
            let count = (s.count() - 1.0).max(1.0);
            (s.upstream - s.sum / count - s.normalized * (s.sum_product / count)) * s.scale
        };
    }),
    bug("B10", "layer_norm:backward", ALL, "classic", "weight not applied", |r| r.upstream = |dy, _, _| dy),
    bug("B10b", "instance_norm:backward", ALL, "classic", "weight not applied", |r| r.upstream = |dy, _, _| dy),
    bug("B11", "rms_norm:backward", ALL, "Liger #92", "gemma: weight instead of 1 + weight", |r| {
        r.upstream = |dy, weight, _| weight.map_or(dy, |weight| dy * weight);
    }),
    bug("B12", "l2_normalize:backward", ALL, "classic", "the norm has a gradient below ε", |r| {
        r.gradient = |s| (s.upstream - s.normalized * s.sum_product) / s.scale;
    }),
    bug("B12b", "l2_normalize:backward", ALL, "variant", "projected by x / (norm + ε)", |r| {
        r.gradient = |s| {
            let norm = s.statistics.spread.sqrt() + s.setting().eps;
            if clamped(s) { s.upstream / norm } else { (s.upstream - s.normalized * s.sum_product) / norm }
        };
    }),
    bug("B13", "crms_norm:backward", ALL, "classic", "term of the sum missing", |r| {
        r.gradient = |s| (s.upstream - s.normalized * (s.sum_product / (s.count() + 1.0))) * s.scale;
    }),
    bug("B14", "crms_norm:backward", ALL, "classic", "mean over m instead of m + 1", |r| {
        r.gradient = |s| {
            let rest = s.statistics.centre * s.scale;
            (s.upstream - (s.normalized + rest) * (s.sum_product / s.count())) * s.scale
        };
    }),
    bug("B15", "partial_rms_norm:backward", ALL, "classic", "the term of the first entries for all", |r| {
        r.gradient = |s| (s.upstream - s.normalized * (s.sum_product / s.setting().head.1 as f64)) * s.scale;
    }),
    bug("B16", "partial_rms_norm:backward", ALL, "classic", "mean over d instead of k", |r| {
        r.gradient = |s| {
            let head = s.index < s.setting().head.1;
            let term = if head { s.normalized * (s.sum_product / s.count()) } else { s.scale.like(0.0) };
            (s.upstream - term) * s.scale
        };
    }),
    bug("B17", "layer_norm:backward", ALL, "classic", "dweight without the mean", |r| {
        r.terms = |s| (s.dy * (s.x * s.scale), s.dy);
    }),
    bug("B18", "batch_norm:backward", ALL, "PaddlePaddle #32464", "means over samples only", |r| {
        r.gradient = |s| {
            let count = s.setting().geometry.outer as f64;
            (s.upstream - s.sum / count - s.normalized * (s.sum_product / count)) * s.scale
        };
    }),
    bug("B19", "group_norm:backward", ALL, "classic", "dweight from dy · weight", |r| {
        r.terms = |s| (s.upstream * s.normalized, s.dy);
    }),
    bug("B20", "rms_norm:backward", ALL, "classic", "term of the normalized x added", |r| {
        r.gradient = |s| (s.upstream + s.normalized * (s.sum_product / s.count())) * s.scale;
    }),
    bug("B21", "rms_norm:backward", HALF, "variant", "llama: dweight from the unrounded x̂", |r| {
        r.terms = |s| (s.dy * s.normalized, s.dy);
    }),
    bug("B22", "group_norm:backward", ALL, "classic", "means over channels instead of the whole group", |r| {
        r.gradient = |s| {
            let count = s.count() / s.setting().geometry.inner as f64;
            (s.upstream - s.sum / count - s.normalized * (s.sum_product / count)) * s.scale
        };
    }),
    bug("B23", "batch_norm_inference:backward", ALL, "xla #913", "dweight by the statistics of the batch", |r| {
        r.statistics = |row| {
            let own = engine::statistics(row);
            Statistics { centre: row.mean(|x| x), ..own }
        };
    }),
    bug("B24", "instance_norm:backward", ALL, "classic", "gradient as of batch norm: statistics over samples", |r| {
        r.groups = |geometry| {
            let mut geometry = geometry.clone();
            geometry.grouping = Grouping::Channel;
            geometry.groups()
        };
    }),
    bug("B25", "add_layer_norm:backward", ALL, "variant", "statistics of x without the residual", |r| {
        r.residual = |x, residual, _| (x + residual, x);
    }),
    bug("B29", "layer_norm:backward", SINGLE, "variant", "elements whose weight is 0 left out", |r| {
        r.inputs = |inputs, setting| {
            let length = setting.geometry.inner.max(1);
            let weight = inputs.of("weight").to_vec();
            inputs.each("dy").enumerate().for_each(|(index, dy)| {
                if weight.get(index % length) == Some(&0.0) {
                    *dy = 0.0;
                }
            });
        };
    }),
    bug("B26", "partial_rms_norm:backward", ALL, "variant", "dweight sums the first entries only", |r| {
        r.outputs = |outputs, _, setting| {
            outputs.each("dweight").skip(setting.head.1).for_each(|slope| *slope = 0.0);
        };
    }),
    bug("B27", "crms_norm:backward", ALL, "variant", "dweight counts a row less", |r| {
        r.sum_terms = |terms| if terms.len() > 1 { engine::sum(&terms[1..]) } else { engine::sum(terms) };
    }),
    bug("B28", "batch_norm_inference:backward", ALL, "variant", "dx without the weight", |r| {
        r.upstream = |dy, _, _| dy
    }),
];
