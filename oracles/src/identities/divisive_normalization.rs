//! GDN: where it is RMSNorm, and where it can be undone in closed form.

use super::{AxisRange, Deviation, Identity, Kind, Size, Values, data, input};
use crate::operators::Paper;

const PAPER: Paper = Paper {
    title: "Density Modeling of Images using a Generalized Normalization Transformation",
    reference: "arXiv:1511.06281",
};

const AXES: &[AxisRange] = &[
    AxisRange { name: "n", meaning: "positions", size: Size::Between(1, 8) },
    AxisRange { name: "j", meaning: "channels, as those that divide", size: Size::Follows(|of| of("d")) },
    AxisRange { name: "d", meaning: "channels", size: Size::Width(2, 64) },
];

pub(super) static RMS: Identity = Identity {
    name: "divisive_normalization_is_rms_norm",
    summary: "GDN in which all channels divide alike is RMSNorm over the channels",
    condition: "every γ is one over the number of channels, every β is ε",
    map_in_words: "none",
    axes: AXES,
    depth: (1, 1),
    inputs: |_| vec![data("x", "n d"), input("one", "j d", Kind::Fixed, Values::Uniform(1.0, 1.0))],
    eps: 1e-5,
    left: |s| {
        let count = s.builder().count("d");
        let gamma = s.get("one") / if s.is("γ not one over d") { count + 1.0 } else { count };
        let pool = s.get("x").head("d", "j").square().dot(gamma, "j");
        s.get("x") / (pool + s.eps()).sqrt()
    },
    map: |_| vec![],
    right: |s| {
        if s.is("LayerNorm") { s.layer_norm(s.get("x"), "d") } else { s.rms_norm(s.get("x"), "d") }
    },
    deviations: &[Deviation::condition("γ not one over d"), Deviation::planted("LayerNorm")],
    training: &[],
    papers: &[PAPER],
};

pub(super) static INVERSE: Identity = Identity {
    name: "divisive_normalization_inverse",
    summary: "GDN in which one weighted pool divides every channel is undone by x = y √(β / (1 - Σ γ y²))",
    condition: "the pool is the same for every channel; otherwise only a fixed-point iteration undoes it (IGDN, the decoder's \
        layer, is not the inverse)",
    map_in_words: "none",
    axes: AXES,
    depth: (1, 1),
    inputs: |_| {
        vec![
            data("x", "n d"),
            input("gamma", "j", Kind::Param, Values::Uniform(0.05, 0.2)),
            input("beta", "", Kind::Param, Values::Uniform(0.5, 2.0)),
            input("own", "d", Kind::Fixed, Values::Uniform(0.1, 0.2)),
        ]
    },
    eps: 0.0,
    left: |s| s.get("x"),
    map: |_| vec![],
    right: |s| {
        let x = s.get("x");
        let pool = x.head("d", "j").square().dot(s.get("gamma"), "j");
        let pool = if s.is("a pool for each channel") { pool + x.square() * s.get("own") } else { pool };
        let y = x / (pool + s.get("beta")).sqrt();
        let again = y.head("d", "j").square().dot(s.get("gamma"), "j");
        if s.is("IGDN for the inverse") {
            return y * (again + s.get("beta")).sqrt();
        }
        y * (s.get("beta") / (s.number(1.0) - again)).sqrt()
    },
    deviations: &[Deviation::condition("a pool for each channel"), Deviation::planted("IGDN for the inverse")],
    training: &[],
    papers: &[PAPER],
};
