//! Norms that are undone.

use super::{AxisRange, Deviation, Identity, Input, Size, bias, data, gain};
use crate::operators::Paper;

const AXES: &[AxisRange] = &[
    AxisRange { name: "n", meaning: "samples", size: Size::Between(2, 6) },
    AxisRange { name: "t", meaning: "time", size: Size::Between(2, 12) },
    AxisRange { name: "d", meaning: "channels", size: Size::Width(1, 128) },
];

fn inputs(_: usize) -> Vec<Input> {
    vec![data("x", "n t d"), gain("w", "d"), bias("b", "d")]
}

pub(super) static INSTANCE: Identity = Identity {
    name: "reversible_instance_norm",
    summary: "RevIN: what is normalized over time and given back the same mean and deviation is what it was",
    condition: "the statistics of the normalization are kept for its inverse; the weight is not 0, and nothing guards it (the \
        paper's code adds ε² to the weight in the inverse)",
    map_in_words: "none",
    axes: AXES,
    depth: (1, 1),
    inputs,
    eps: 1e-5,
    left: |s| s.get("x"),
    map: |_| vec![],
    right: |s| {
        let x = s.get("x");
        let (mean, var) = x.moments("t");
        let deviation = (var + s.eps()).sqrt();
        let normalized = (x - mean) / deviation * s.get("w") + s.get("b");
        let weight = s.get("w") + if s.is("ε in the inverse only") { 1e-5 } else { 0.0 };
        let shifted = if s.is("the shift undone last") {
            normalized / weight - s.get("b")
        } else {
            (normalized - s.get("b")) / weight
        };
        let back = if s.is("the deviation without ε") { var.sqrt() } else { deviation };
        shifted * back + mean
    },
    deviations: &[
        Deviation::condition("ε in the inverse only"),
        Deviation::planted("the shift undone last"),
        Deviation::planted("the deviation without ε"),
    ],
    training: &[],
    papers: &[Paper {
        title: "Reversible Instance Normalization for Accurate Time-Series Forecasting against Distribution Shift",
        reference: "ICLR 2022",
    }],
};

pub(super) static FLOW: Identity = Identity {
    name: "batch_norm_flow",
    summary: "the batch-norm layer of a normalizing flow, then its inverse with the same statistics, changes nothing",
    condition: "forward and inverse use the same statistics; the layer scales by e^w, which is never 0",
    map_in_words: "none",
    axes: AXES,
    depth: (1, 1),
    inputs,
    eps: 1e-5,
    left: |s| s.get("x"),
    map: |_| vec![],
    right: |s| {
        let x = s.get("x");
        let (mean, var) = x.moments("n t");
        let forward = (x - mean) * (var + s.eps()).rsqrt() * s.get("w").exp() + s.get("b");
        let (of_output_mean, of_output_var) = forward.moments("n t");
        let rest = (forward - s.get("b"))
            * (if s.is("divided by w") { s.number(1.0) / s.get("w") } else { s.get("w").neg().exp() });
        if s.is("statistics of the output") {
            return rest * (of_output_var + s.eps()).sqrt() + of_output_mean;
        }
        rest * (var + s.eps()).sqrt() + mean
    },
    deviations: &[Deviation::condition("statistics of the output"), Deviation::planted("divided by w")],
    training: &[],
    papers: &[Paper { title: "Masked Autoregressive Flow for Density Estimation", reference: "arXiv:1705.07057" }],
};
