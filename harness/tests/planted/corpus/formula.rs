//! P: another formula than the operator's.

use super::{ALL, Bug, HALF, bug};
use crate::engine::{self, Statistics};
use crate::geometry::Grouping;
use crate::number::toward_zero;

pub const BUGS: &[Bug] = &[
    bug("P01", "partial_rms_norm:forward", ALL, "paper's code", "⌊p·d⌋ entries instead of ⌈p·d⌉", |r| {
        r.inputs = |_, setting| setting.head.1 = ((setting.head.0 * setting.geometry.inner as f64) as usize).max(1);
    }),
    bug("P02", "partial_rms_norm:forward", ALL, "classic", "mean over the whole row", |r| {
        r.inputs = |_, setting| setting.head.1 = setting.geometry.inner;
    }),
    bug("P03", "crms_norm:forward", ALL, "classic", "the entry that is not stored left out", |r| {
        r.statistics = |row| {
            let total = row.sum(|x| x.square());
            Statistics { centre: total.like(0.0), spread: total / (row.x.len() as f64 + 1.0) }
        };
    }),
    bug("P04", "crms_norm:forward", ALL, "classic", "mean over m instead of m + 1", |r| {
        r.statistics = |row| {
            let own = engine::statistics(row);
            let count = row.x.len() as f64;
            Statistics { spread: own.spread * (count + 1.0) / count, ..own }
        };
    }),
    bug(
        "P05",
        "rms_norm:forward",
        ALL,
        "classic",
        "mean of the magnitudes instead of the root of the mean square",
        |r| {
            r.statistics = |row| {
                let spread = row.mean(|x| x.map(f64::abs)).square();
                Statistics { centre: spread.like(0.0), spread }
            };
        },
    ),
    bug("P06", "l2_normalize:forward", ALL, "classic", "root forgotten", |r| {
        r.scale = |spread, setting| spread.max(setting.eps);
    }),
    bug("P07", "add_layer_norm:forward", ALL, "sglang #28226", "residual_out is x", |r| {
        r.outputs = |outputs, inputs, _| outputs.set("residual_out", inputs.of("x").to_vec());
    }),
    bug("P08", "add_rms_norm:forward", HALF, "flashinfer PR #587", "residual_out rounded towards zero", |r| {
        r.residual = |x, residual, setting| {
            let (stored, read) = engine::residual(x, residual, setting);
            (stored.map(|sum| toward_zero(sum, setting.data)), read)
        };
    }),
    bug("P09", "layer_norm:forward", ALL, "Sakana: default weights", "weight and bias ignored", |r| {
        r.affine = |normalized, _, _, _| normalized;
    }),
    bug("P10", "group_norm:forward", ALL, "KernelBench 33-35", "weight taken as 1", |r| {
        r.affine = |normalized, _, bias, setting| engine::affine(normalized, None, bias, setting);
    }),
    bug("P11", "layer_norm:forward", ALL, "classic", "(weight + bias) instead of · weight + bias", |r| {
        r.affine = |normalized, weight, bias, setting| match (weight, bias) {
            (Some(weight), Some(bias)) => normalized * (weight + bias),
            _ => engine::affine(normalized, weight, bias, setting),
        };
    }),
    bug("P12", "instance_norm:forward", ALL, "classic", "normalized over the whole sample", |r| {
        r.groups = |geometry| {
            let mut geometry = geometry.clone();
            geometry.grouping = Grouping::Channels(1);
            geometry.groups()
        };
    }),
    bug("P13", "group_norm:forward", ALL, "classic", "channels dealt to the groups in turn", |r| {
        r.groups = |geometry| {
            let Grouping::Channels(groups) = geometry.grouping else { return geometry.groups() };
            let mut dealt = vec![Vec::new(); geometry.outer * groups];
            for entry in geometry.groups().concat() {
                let sample = entry.element / (geometry.channels * geometry.inner).max(1);
                dealt[sample * groups + entry.param % groups].push(entry);
            }
            dealt
        };
    }),
];
