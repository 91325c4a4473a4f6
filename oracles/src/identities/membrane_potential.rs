//! BatchNorm on the membrane potential of spiking neurons is a part of their threshold.

use super::{AxisRange, Deviation, Identity, Kind, Size, Values, bias, data, gain, input, running_mean, running_var};
use crate::operators::Paper;

pub(super) static IDENTITY: Identity = Identity {
    name: "membrane_potential_batch_norm",
    summary: "leaky integrate-and-fire neurons that fire by a normalized potential fire by the potential and another threshold",
    condition: "the statistics are fixed (inference) and the weight of BatchNorm is positive: a negative one turns the \
        comparison round",
    map_in_words: "the threshold of each channel: (0.5 - bias) · √(running_var + ε) / weight + running_mean",
    axes: &[
        AxisRange { name: "n", meaning: "samples", size: Size::Between(8, 16) },
        AxisRange { name: "d", meaning: "channels", size: Size::Width(4, 128) },
    ],
    depth: (2, 4),
    inputs: |steps| {
        let currents = (0..steps).map(|step| data(&format!("x.{step}"), "n d"));
        let threshold = input("threshold", "d", Kind::Fixed, Values::Uniform(0.5, 0.5));
        let rest = [
            gain("weight", "d"),
            bias("bias", "d"),
            running_mean("running_mean", "d"),
            running_var("running_var", "d"),
            threshold,
        ];
        currents.chain(rest).collect()
    },
    eps: 1e-5,
    left: |s| {
        let mut potential = s.number(0.0);
        let mut spikes = s.number(0.0);
        for step in 0..s.depth() {
            potential = potential * 0.25 + s.get(&format!("x.{step}"));
            let weight = if s.is("a negative weight") { s.get("weight").neg() } else { s.get("weight") };
            let rstd = (s.get("running_var") + s.eps()).rsqrt();
            let normalized = (potential - s.get("running_mean")) * rstd * weight + s.get("bias");
            let spike = s.builder().select(normalized, s.get("threshold"), s.number(1.0), s.number(0.0));
            potential = potential * (s.number(1.0) - spike);
            spikes = spikes * 2.0 + spike;
        }
        spikes
    },
    map: |s| {
        let threshold =
            if s.is("the bias forgotten") { s.get("threshold") } else { s.get("threshold") - s.get("bias") };
        let weight = if s.is("a negative weight") { s.get("weight").neg() } else { s.get("weight") };
        let mean = if s.is("the mean on the wrong side") { s.get("running_mean").neg() } else { s.get("running_mean") };
        let moved = threshold * (s.get("running_var") + s.eps()).sqrt() / weight + mean;
        vec![("threshold".to_owned(), moved)]
    },
    right: |s| {
        let mut potential = s.number(0.0);
        let mut spikes = s.number(0.0);
        for step in 0..s.depth() {
            potential = potential * 0.25 + s.get(&format!("x.{step}"));
            let spike = s.builder().select(potential, s.get("threshold"), s.number(1.0), s.number(0.0));
            potential = potential * (s.number(1.0) - spike);
            spikes = spikes * 2.0 + spike;
        }
        spikes
    },
    deviations: &[
        Deviation::condition("a negative weight"),
        Deviation::planted("the bias forgotten"),
        Deviation::planted("the mean on the wrong side"),
    ],
    training: &[],
    papers: &[Paper {
        title: "Membrane Potential Batch Normalization for Spiking Neural Networks",
        reference: "arXiv:2308.08359",
    }],
};
