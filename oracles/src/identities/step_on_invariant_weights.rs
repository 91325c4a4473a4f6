//! Steps on weights whose scale nothing sees: weight decay is a learning rate, the projection of AdamP loses nothing.

use super::{AxisRange, Deviation, Identity, Input, Kind, Size, Values, data, input, weight};
use crate::operators::Paper;

const AXES: &[AxisRange] = &[
    AxisRange { name: "n", meaning: "samples", size: Size::Between(3, 8) },
    AxisRange { name: "d", meaning: "inputs", size: Size::Width(2, 128) },
    AxisRange { name: "o", meaning: "outputs", size: Size::Between(2, 8) },
];

fn inputs(_: usize) -> Vec<Input> {
    let rate = |name: &str| input(name, "", Kind::Fixed, Values::Uniform(0.01, 0.3));
    vec![data("x", "n d"), weight("w", "d o", "d"), weight("step", "d o", "d"), rate("rate"), rate("decay")]
}

pub(super) static DECAY: Identity = Identity {
    name: "weight_decay_is_a_learning_rate",
    summary: "before BatchNorm, a step with weight decay is a larger step without it",
    condition: "ε = 0: what follows does not see the scale of the weights",
    map_in_words: "the learning rate over 1 - learning rate · decay",
    axes: AXES,
    depth: (1, 1),
    inputs,
    eps: 0.0,
    left: |s| {
        let (rate, w) = (s.get("rate"), s.get("w"));
        let stepped = w * (s.number(1.0) - rate * s.get("decay")) - s.get("step") * rate;
        let z = s.get("x").dot(stepped, "d");
        let (mean, var) = z.moments("n");
        (z - mean) * (var + if s.is("ε > 0") { 1e-2 } else { 0.0 }).rsqrt()
    },
    map: |s| {
        let shrunk = s.get("rate") * s.get("decay");
        let grown = if s.is("the rate times 1 + rate · decay") {
            s.get("rate") * (shrunk + 1.0)
        } else {
            s.get("rate") / (s.number(1.0) - shrunk)
        };
        vec![("rate".to_owned(), grown)]
    },
    right: |s| {
        let z = s.get("x").dot(s.get("w") - s.get("step") * s.get("rate"), "d");
        let (mean, var) = z.moments("n");
        (z - mean) * (var + if s.is("ε > 0") { 1e-2 } else { 0.0 }).rsqrt()
    },
    deviations: &[Deviation::condition("ε > 0"), Deviation::planted("the rate times 1 + rate · decay")],
    training: &[],
    papers: &[Paper {
        title: "L2 Regularization versus Batch and Weight Normalization",
        reference: "arXiv:1706.05350",
    }],
};

pub(super) static PROJECTION: Identity = Identity {
    name: "radial_projection",
    summary: "AdamP's projection: a step without its part along the weights makes their length √(‖w‖² + rate² ‖step‖²)",
    condition: "the projection is made weight vector by weight vector, as the length is",
    map_in_words: "none",
    axes: AXES,
    depth: (1, 1),
    inputs,
    eps: 0.0,
    left: |s| {
        let (w, step) = (s.get("w"), s.get("step"));
        let over = if s.is("one projection for the whole matrix") { "d o" } else { "d" };
        let along = w * (w.dot(step, over) / w.square().sum(over));
        let projected = if s.is("not projected") { step } else { step - along };
        (w - projected * s.get("rate")).square().sum("d").sqrt()
    },
    map: |_| vec![],
    right: |s| {
        let (w, step, rate) = (s.get("w"), s.get("step"), s.get("rate"));
        let along = w * (w.dot(step, "d") / w.square().sum("d"));
        ((step - along).square().sum("d") * rate.square() + w.square().sum("d")).sqrt()
    },
    deviations: &[Deviation::condition("one projection for the whole matrix"), Deviation::planted("not projected")],
    training: &[],
    papers: &[Paper {
        title: "AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant Weights",
        reference: "arXiv:2006.08217",
    }],
};
