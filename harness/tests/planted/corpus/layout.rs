//! S and I: layouts, strides, ranks, broadcasting, narrow integers.

use std::sync::Arc;

use isonorm_kernels::abi::Tensor;

use super::{ALL, Bug, bug};
use crate::engine;
use crate::geometry::{Entry, Geometry};
use crate::memory;

pub const BUGS: &[Bug] = &[
    bug("S01", "batch_norm_inference:forward", ALL, "pytorch #62594", "channels-last taken as contiguous", |r| {
        (r.input_offsets, r.output_offsets) = (dense, dense);
    }),
    bug("S02", "batch_norm:backward", ALL, "pytorch #147303", "inputs taken as contiguous", |r| {
        r.input_offsets = dense
    }),
    bug("S06", "layer_norm:forward", ALL, "LightLLM #1467", "step between the entries of a row ignored", |r| {
        r.input_offsets = |tensor| {
            let mut strides = tensor.strides.to_vec();
            if let Some(last) = strides.last_mut().filter(|last| **last != 0) {
                *last = 1;
            }
            memory::walk(tensor.shape, &strides)
        };
    }),
    bug("S08", "rms_norm:backward", ALL, "quack #88", "expanded inputs taken as dense", |r| {
        r.input_offsets = |tensor| if tensor.strides.contains(&0) { dense(tensor) } else { engine::offsets(tensor) };
    }),
    bug("S09", "rms_norm:forward", ALL, "ggml (llama 11659)", "step between rows ignored", |r| {
        r.input_offsets = |tensor| {
            let mut strides = tensor.strides.to_vec();
            for axis in (1..strides.len()).rev() {
                strides[axis - 1] = strides[axis] * tensor.shape[axis];
            }
            memory::walk(tensor.shape, &strides)
        };
    }),
    bug("S10", "layer_norm:backward", ALL, "FlagGems #5392", "number of rows is the first size", |r| {
        r.groups = |geometry| {
            let mut groups = geometry.groups();
            groups.truncate(geometry.shape[0]);
            groups
        };
    }),
    bug("S12", "group_norm:forward", ALL, "ggml (llama 26085)", "strided input taken as contiguous", |r| {
        r.input_offsets = dense;
    }),
    bug("S13", "layer_norm:forward", ALL, "onnxruntime PR #28971", "the first weight used for all", |r| {
        r.groups = |geometry| entries(geometry, |entry| Entry { param: 0, ..entry });
    }),
    bug("S14", "layer_norm:forward", ALL, "pytorch #193016", "only the last dimension normalized over", |r| {
        r.groups = |geometry| {
            let last = geometry.shape.last().copied().unwrap_or(1).max(1);
            geometry.groups().iter().flat_map(|group| group.chunks(last).map(<[Entry]>::to_vec)).collect()
        };
    }),
    bug("S14b", "rms_norm:backward", ALL, "pytorch #192016", "dweight sized by the last dimension", |r| {
        r.outputs = |outputs, _, setting| {
            let last = setting.geometry.shape.last().copied().unwrap_or(0);
            outputs.each("dweight").skip(last).for_each(|slope| *slope = 0.0);
        };
    }),
    bug("S15", "batch_norm_inference:forward", ALL, "tt-metal PR #5317", "bias dropped without a weight", |r| {
        r.affine = |normalized, weight, bias, setting| {
            engine::affine(normalized, weight, bias.filter(|_| weight.is_some()), setting)
        };
    }),
    bug("S16", "batch_norm:forward", ALL, "lc0 #778", "sign of the weight lost", |r| {
        r.inputs = |inputs, _| inputs.each("weight").for_each(|weight| *weight = weight.abs());
    }),
    bug("S16b", "layer_norm:forward", ALL, "lc0 #779", "weight 0 taken as absent", |r| {
        r.inputs =
            |inputs, _| inputs.each("weight").for_each(|weight| *weight = if *weight == 0.0 { 1.0 } else { *weight });
    }),
    bug("S17", "layer_norm:forward", ALL, "variant", "output written as if contiguous", |r| r.output_offsets = dense),
    bug("S19", "add_rms_norm:forward", ALL, "onnxruntime #17689", "x taken for the residual too", |r| {
        r.inputs = |inputs, _| inputs.set("residual", inputs.of("x").to_vec());
    }),
    bug("B03", "rms_norm:backward", ALL, "ggml (llama 24305)", "reads what it has overwritten", |r| {
        r.around = Some(Arc::new(|call, compute| compute(call).and_then(|()| compute(call))));
    }),
    bug("R16", "layer_norm:forward", ALL, "ik_llama.cpp PR #916", "reads what it has overwritten", |r| {
        r.around = Some(Arc::new(|call, compute| compute(call).and_then(|()| compute(call))));
    }),
    bug("I01", "layer_norm:forward", ALL, "pytorch #181555", "16-bit offsets: elements beyond 65,535", |r| {
        r.output_offsets = |tensor| engine::offsets(tensor).into_iter().map(|offset| offset & 0xffff).collect();
    }),
    bug("I06", "rms_norm:forward", ALL, "apex #411", "rows beyond 65,535 skipped", |r| {
        r.groups = |geometry| {
            let mut groups = geometry.groups();
            groups.truncate(65_535);
            groups
        };
    }),
    bug("I07", "rms_norm:forward", ALL, "llama.cpp #27901", "length of a row in 16 bits", |r| {
        r.statistics = |row| {
            let head = row.x[..row.x.len() & 0xffff].to_vec();
            engine::statistics(&row.with(if head.is_empty() { row.x.clone() } else { head }))
        };
    }),
    bug("I08", "batch_norm:backward", ALL, "MIOpen #1109", "samples beyond 768 left out", |r| {
        r.groups = |geometry| {
            let end = 768 * geometry.channels * geometry.inner;
            geometry.groups().iter().map(|group| group.iter().copied().filter(|e| e.element < end).collect()).collect()
        };
    }),
    bug("I09", "instance_norm:forward", ALL, "variant", "instances beyond 255 skipped", |r| {
        r.groups = |geometry| {
            let mut groups = geometry.groups();
            groups.truncate(255);
            groups
        };
    }),
    bug("I05", "group_norm:forward", ALL, "apex #1984", "groups in blocks of 4, the rest skipped", |r| {
        r.groups = |geometry| {
            let mut groups = geometry.groups();
            groups.truncate(groups.len() / 4 * 4);
            groups
        };
    }),
];

/// As if the tensor were dense.
fn dense(tensor: &Tensor<'_>) -> Vec<isize> {
    (0..tensor.len() as isize).collect()
}

/// The groups with entries changed.
pub fn entries(geometry: &Geometry, change: impl Fn(Entry) -> Entry) -> Vec<Vec<Entry>> {
    geometry.groups().iter().map(|group| group.iter().map(|&entry| change(entry)).collect()).collect()
}
