//! M: biased and unbiased variance, momentum, degenerate sizes.

use super::{ALL, Bug, bug};
use crate::engine::{self, Row, Statistics};

pub const BUGS: &[Bug] = &[
    bug("M01", "batch_norm:forward", ALL, "ml-explore/mlx PR #3817", "running_var from the biased variance", |r| {
        r.unbiased = |variance, _, _| variance;
    }),
    bug("M02", "group_norm:forward", ALL, "TensorFlow #55545", "unbiased variance", |r| r.statistics = unbiased),
    bug("M04", "instance_norm:forward", ALL, "apache/mxnet #21111", "running_var from the biased variance", |r| {
        r.unbiased = |variance, _, _| variance;
    }),
    bug("M05", "instance_norm:forward", ALL, "variant", "unbiased variance", |r| r.statistics = unbiased),
    bug("M06", "layer_norm:forward", ALL, "FluxML/Flux.jl #529", "unbiased variance", |r| r.statistics = unbiased),
    bug("M07", "batch_norm:forward", ALL, "paiml/aprender #2166", "running statistics not updated", |r| {
        r.running = |old, _, _| old;
    }),
    bug("M08", "batch_norm:forward", ALL, "Oneflow #6055", "momentum inverted", |r| {
        r.running = |old, new, factor| old * factor + new * (factor.like(1.0) - factor);
    }),
    bug("M08b", "instance_norm:forward", ALL, "ludwig #2100", "momentum inverted", |r| {
        r.running = |old, new, factor| old * factor + new * (factor.like(1.0) - factor);
    }),
    bug("M09", "batch_norm:forward", ALL, "NVIDIA/apex #233", "running_var written to running_mean", |r| {
        r.outputs = |outputs, _, _| {
            if let Some(variance) = outputs.get("new_running_var").cloned() {
                outputs.set("new_running_mean", variance);
            }
        };
    }),
    bug("M10", "batch_norm:forward", ALL, "pytorch #12013", "an empty batch makes running_mean NaN", |r| {
        r.outputs = |outputs, inputs, _| {
            if inputs.of("x").is_empty() {
                outputs.each("new_running_mean").for_each(|mean| *mean = f64::NAN);
            }
        };
    }),
    bug("M12", "layer_norm:backward", ALL, "pytorch #120803", "no rows: dweight is 0/0", |r| {
        r.outputs = |outputs, _, setting| {
            if setting.geometry.outer == 0 {
                outputs.each("dweight").for_each(|slope| *slope = f64::NAN);
            }
        };
    }),
    bug("M12b", "batch_norm:backward", ALL, "oneDNN 9172a74", "no samples: nothing written", |r| {
        r.outputs = |outputs, _, setting| {
            if setting.geometry.outer == 0 {
                *outputs = Default::default();
            }
        };
    }),
    bug("M13", "batch_norm:forward", ALL, "equinox #1010", "cumulative average: 1 / batches before", |r| {
        r.inputs = |_, setting| {
            if let Some(batches) = setting.batches {
                setting.factor = 1.0 / batches as f64;
            }
        };
    }),
    bug("M13b", "batch_norm:forward", ALL, "variant", "cumulative average taken as momentum 0.1", |r| {
        r.inputs = |_, setting| setting.factor = setting.batches.map_or(setting.factor, |_| 0.1);
    }),
    bug("M14", "instance_norm:forward", ALL, "pytorch #45687", "one position: x instead of the bias", |r| {
        r.normalize = |x, statistics, scale, setting| {
            if setting.geometry.inner == 1 { x } else { engine::normalize(x, statistics, scale, setting) }
        };
    }),
    bug("M15", "instance_norm:forward", ALL, "Paddle #32464", "running statistics from the last sample only", |r| {
        r.outputs = |outputs, inputs, setting| {
            let channels = setting.geometry.channels;
            let x = inputs.of("x");
            let Some(old) = inputs.get("running_mean") else { return };
            if x.is_empty() {
                return;
            }
            let last = &x[x.len() - channels * setting.geometry.inner..];
            let means = last.chunks(setting.geometry.inner).map(|x| x.iter().sum::<f64>() / x.len() as f64);
            let factor = setting.factor;
            outputs.set(
                "new_running_mean",
                means.zip(old).map(|(new, old)| old * (1.0 - factor) + new * factor).collect(),
            );
        };
    }),
    bug("M16", "batch_norm:backward", ALL, "FlagGems #5771", "the variance taken for 1/√variance", |r| {
        r.scale = |spread, _| spread;
    }),
    bug("M18", "batch_norm_inference:backward", ALL, "pytorch #586", "gradient as in training", |r| {
        r.gradient = |slope| {
            let count = slope.count();
            let mean = slope.sum / count + slope.normalized * (slope.sum_product / count);
            (slope.upstream - mean) * slope.scale
        };
    }),
    bug("M19", "batch_norm_inference:forward", ALL, "sonnet #174", "normalized by the batch", |r| {
        r.statistics = |row| {
            let centre = row.mean(|x| x);
            Statistics { centre, spread: row.mean(|x| (x - centre).square()) }
        };
    }),
    bug("M20", "batch_norm:forward", ALL, "variant", "unbiased variance counts samples only", |r| {
        r.unbiased = |variance, _, setting| {
            let samples = setting.geometry.outer as f64;
            variance * (variance.like(samples) / (samples - 1.0))
        };
    }),
    bug("M21", "batch_norm:forward", ALL, "variant", "running_var not updated", |r| {
        r.outputs = |outputs, inputs, _| {
            if let Some(old) = inputs.get("running_var") {
                outputs.set("new_running_var", old.clone());
            }
        };
    }),
];

fn unbiased(row: &Row<'_>) -> Statistics {
    let Statistics { centre, spread } = engine::statistics(row);
    let count = row.x.len() as f64;
    // A kernel with this bug guards against the quotient 0/0.
    if count < 2.0 {
        Statistics { centre, spread }
    } else {
        Statistics { centre, spread: spread * count / (count - 1.0) }
    }
}
