//! With frozen weights less has to be kept for the backward half, and the gradients of the inputs are the same.

use super::{AxisRange, Deviation, Identity, Kind, Size, Values, data, input, running_mean, running_var};
use crate::operators::Paper;

const PAPER: Paper = Paper {
    title: "Lowering PyTorch's Memory Consumption for Selective Differentiation",
    reference: "arXiv:2404.12406",
};

pub(super) static BATCH_NORM: Identity = Identity {
    name: "frozen_batch_norm_backward",
    summary: "BatchNorm in inference with frozen weight and bias: the gradient of its input needs no activation",
    condition: "statistics, weight and bias are fixed, so that the layer is a scale and a shift for each channel",
    map_in_words: "scale and shift for each channel; both sides are the gradients with respect to x for a given dy",
    axes: &[
        AxisRange { name: "n", meaning: "samples", size: Size::Between(2, 8) },
        AxisRange { name: "d", meaning: "channels", size: Size::Width(1, 256) },
    ],
    depth: (1, 1),
    inputs: |_| {
        vec![
            data("x", "n d"),
            data("dy", "n d"),
            input("g", "d", Kind::Fixed, Values::Uniform(0.5, 2.0)),
            running_mean("running_mean", "d"),
            running_var("running_var", "d"),
        ]
    },
    eps: 1e-5,
    left: |s| {
        let x = s.get("x");
        let dxhat = s.get("dy") * s.get("g");
        if s.is("statistics of the batch") {
            // Then the statistics have gradients too.
            let (mean, var) = x.moments("n");
            let rstd = (var + s.eps()).rsqrt();
            let xhat = (x - mean) * rstd;
            return (dxhat - dxhat.mean("n") - xhat * (dxhat * xhat).mean("n")) * rstd;
        }
        dxhat * (s.get("running_var") + s.eps()).rsqrt()
    },
    map: |s| {
        let deviation = (s.get("running_var") + s.eps()).sqrt();
        let deviation = if s.is("ε forgotten") { s.get("running_var").sqrt() } else { deviation };
        vec![("scale".to_owned(), s.get("g") / deviation)]
    },
    right: |s| s.get("dy") * s.get("scale"),
    deviations: &[Deviation::condition("statistics of the batch"), Deviation::planted("ε forgotten")],
    training: &[],
    papers: &[PAPER],
};

pub(super) static LAYER_NORM: Identity = Identity {
    name: "frozen_layer_norm_backward",
    summary: "LayerNorm with a frozen gain: the gradient of its input from its normalized output alone, without the input",
    condition: "the normalized output (or the input) is still kept: unlike BatchNorm in inference it is needed",
    map_in_words: "the input is replaced by the normalized output and 1/√(var + ε); both sides are the gradients for a given dy",
    axes: &[
        AxisRange { name: "n", meaning: "rows", size: Size::Between(1, 8) },
        AxisRange { name: "d", meaning: "entries of a row", size: Size::Width(2, 256) },
    ],
    depth: (1, 1),
    inputs: |_| vec![data("x", "n d"), data("dy", "n d"), input("g", "d", Kind::Fixed, Values::Uniform(0.5, 2.0))],
    eps: 1e-5,
    left: |s| {
        // From the input: through the mean and the variance.
        let x = s.get("x");
        let (mean, var) = x.moments("d");
        let rstd = (var + s.eps()).rsqrt();
        let dxhat = s.get("dy") * s.get("g");
        let dvar = (dxhat * (x - mean)).sum("d") * (rstd * rstd * rstd) * -0.5;
        let dmean = dxhat.sum("d").neg() * rstd;
        let count = s.builder().count("d");
        dxhat * rstd + dvar * (x - mean) * 2.0 / count + dmean / count
    },
    map: |s| {
        let (mean, var) = s.get("x").moments("d");
        let rstd = (var + s.eps()).rsqrt();
        vec![("xhat".to_owned(), (s.get("x") - mean) * rstd), ("rstd".to_owned(), rstd)]
    },
    right: |s| {
        let (xhat, dxhat) = (s.get("xhat"), s.get("dy") * s.get("g"));
        if s.is("the output not kept") {
            return dxhat * s.get("rstd");
        }
        let along = if s.is("sums of separate means") { dxhat.mean("d") * xhat } else { (dxhat * xhat).mean("d") };
        (dxhat - dxhat.mean("d") - xhat * along) * s.get("rstd")
    },
    deviations: &[Deviation::condition("the output not kept"), Deviation::planted("sums of separate means")],
    training: &[],
    papers: &[PAPER],
};
