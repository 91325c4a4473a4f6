//! The ends of the scale of GroupNorm: LayerNorm and InstanceNorm; and BatchNorm over one sample.

use super::{AxisRange, Deviation, Identity, Input, Size, THROUGH_MAP, bias, data, gain};
use crate::apply;
use crate::operators::Paper;

const PAPER: Paper = Paper { title: "Group Normalization", reference: "arXiv:1803.08494, section 3.1" };

const AXES: &[AxisRange] = &[
    AxisRange { name: "n", meaning: "samples", size: Size::Between(2, 4) },
    AxisRange { name: "u", meaning: "one group, or one channel of each group", size: Size::Follows(|_| 1) },
    AxisRange { name: "d", meaning: "channels", size: Size::Width(2, 64) },
    AxisRange { name: "s", meaning: "positions", size: Size::Between(2, 12) },
];

fn inputs(_: usize) -> Vec<Input> {
    vec![data("x", "n u d s"), gain("weight", "d"), bias("bias", "d")]
}

pub(super) static ONE_GROUP: Identity = Identity {
    name: "group_norm_of_one_group",
    summary: "GroupNorm with one group is LayerNorm over channels and positions, with a gain for each channel",
    condition: "one group, which has all channels",
    map_in_words: "none",
    axes: AXES,
    depth: (1, 1),
    inputs,
    eps: 1e-5,
    left: |s| {
        let groups = if s.is("a group for each channel") { ("d", "u") } else { ("u", "d") };
        let axes = [("g", groups.0), ("k", groups.1), ("s", "s")];
        apply(s.builder(), "group_norm", 1e-5, &axes, &[("x", s.get("x"))]) * s.get("weight") + s.get("bias")
    },
    map: |_| vec![],
    right: |s| {
        let over = if s.is("each position by itself") { "d" } else { "d s" };
        s.layer_norm(s.get("x"), over) * s.get("weight") + s.get("bias")
    },
    deviations: &[Deviation::condition("a group for each channel"), Deviation::planted("each position by itself")],
    training: THROUGH_MAP,
    papers: &[PAPER],
};

pub(super) static SINGLE_CHANNELS: Identity = Identity {
    name: "group_norm_of_single_channels",
    summary: "GroupNorm with a group for each channel is InstanceNorm",
    condition: "as many groups as channels",
    map_in_words: "none",
    axes: AXES,
    depth: (1, 1),
    inputs,
    eps: 1e-5,
    left: |s| {
        let groups = if s.is("one group") { ("u", "d") } else { ("d", "u") };
        let axes = [("g", groups.0), ("k", groups.1), ("s", "s")];
        let affine = [("x", s.get("x")), ("weight", s.get("weight")), ("bias", s.get("bias"))];
        apply(s.builder(), "group_norm", 1e-5, &axes, &affine)
    },
    map: |_| vec![],
    right: |s| {
        let x = s.get("x");
        if s.is("the unbiased variance") {
            let (mean, var) = x.moments("s");
            let count = s.builder().count("s");
            return (x - mean) * (var * count / (count - 1.0) + s.eps()).rsqrt() * s.get("weight") + s.get("bias");
        }
        let affine = [("x", x), ("weight", s.get("weight")), ("bias", s.get("bias"))];
        apply(s.builder(), "instance_norm", 1e-5, &[("c", "d"), ("s", "s")], &affine)
    },
    deviations: &[Deviation::condition("one group"), Deviation::planted("the unbiased variance")],
    training: THROUGH_MAP,
    papers: &[
        PAPER,
        Paper {
            title: "Instance Normalization: The Missing Ingredient for Fast Stylization",
            reference: "arXiv:1607.08022, eq. 2",
        },
    ],
};

pub(super) static ONE_SAMPLE: Identity = Identity {
    name: "batch_norm_of_one_sample",
    summary: "BatchNorm with the statistics of a batch of one sample is InstanceNorm",
    condition: "the batch has one sample",
    map_in_words: "none",
    axes: AXES,
    depth: (1, 1),
    inputs,
    eps: 1e-5,
    left: |s| {
        let x = s.get("x");
        let (mean, var) = x.moments(if s.is("a batch of several") { "n u s" } else { "u s" });
        (x - mean) * (var + s.eps()).rsqrt() * s.get("weight") + s.get("bias")
    },
    map: |_| vec![],
    right: |s| {
        if s.is("all channels together") {
            return s.layer_norm(s.get("x"), "d s") * s.get("weight") + s.get("bias");
        }
        let affine = [("x", s.get("x")), ("weight", s.get("weight")), ("bias", s.get("bias"))];
        apply(s.builder(), "instance_norm", 1e-5, &[("c", "d"), ("s", "s")], &affine)
    },
    deviations: &[Deviation::condition("a batch of several"), Deviation::planted("all channels together")],
    training: THROUGH_MAP,
    papers: &[PAPER],
};
