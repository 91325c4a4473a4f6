//! C: cancellation and overflow in the statistics.

use super::{ALL, Bug, HALF, SINGLE, bug};
use crate::engine::{Row, Statistics};
use crate::number::Number;

pub const BUGS: &[Bug] = &[
    bug("C01", "layer_norm:forward", ALL, "pytorch #40302", "variance as E[x²] - E[x]²", |r| {
        r.statistics = single_pass
    }),
    bug("C02", "layer_norm:backward", SINGLE, "pytorch #51102", "variance as E[x²] - E[x]²", |r| {
        r.statistics = single_pass;
    }),
    bug("C05", "layer_norm:forward", SINGLE, "pytorch #190491", "one pass, variance below 1e-6 set to 0", |r| {
        r.statistics = |row| below(single_pass(row), 1e-6);
    }),
    bug("C06", "group_norm:forward", SINGLE, "PaddlePaddle #16654", "variance as E[x²] - E[x]²", |r| {
        r.statistics = single_pass;
    }),
    bug("C07", "batch_norm:forward", SINGLE, "google/flax #1491", "one pass, negative variance set to 0", |r| {
        r.statistics = |row| below(single_pass(row), 0.0);
    }),
    bug("C08", "instance_norm:forward", SINGLE, "ml-explore/mlx #2238", "one pass, negative variance set to 0", |r| {
        r.statistics = |row| below(single_pass(row), 0.0);
    }),
    bug("C10", "add_layer_norm:forward", HALF, "onnxruntime #28463", "variance as E[x²] - E[x]² of half data", |r| {
        r.statistics = single_pass;
    }),
    bug("C15", "rms_norm:forward", ALL, "coremltools #2821", "scaled by the maximum, ε not", |r| {
        r.statistics = |row| {
            let most = row.x.iter().fold(0.0f64, |most, x| most.max(x.value().abs()));
            let unit = row.setting().number(if most > 0.0 { most } else { 1.0 });
            let squares = row.mean(|x| (x / unit).square());
            // (m² + ε)·unit² instead of m²·unit² + ε
            let eps = row.setting().eps;
            Statistics { centre: unit.like(0.0), spread: (squares + eps) * unit.square() - eps }
        };
    }),
    bug("C15b", "rms_norm:forward", ALL, "coremltools #2822", "scaled by the maximum, 0/0 for zero rows", |r| {
        r.normalize =
            |x, statistics, scale, _| if statistics.spread.value() == 0.0 { x / x.like(0.0) } else { x * scale };
    }),
    bug("C16", "batch_norm:forward", ALL, "apex #387", "variance as the mean of the samples' variances", |r| {
        r.statistics = |row| average(row, row.setting().geometry.inner);
    }),
    bug("C17", "group_norm:forward", ALL, "variant", "variance as the mean of the channels' variances", |r| {
        r.statistics = |row| average(row, row.setting().geometry.inner);
    }),
    bug("C18", "batch_norm:forward", ALL, "apex PR #792", "Chan's merge without the weight of the parts", |r| {
        r.statistics = |row| {
            let (left, right) = row.x.split_at(row.x.len() / 3);
            if left.is_empty() {
                return crate::engine::statistics(row);
            }
            let [a, b] = [left, right].map(|part| crate::engine::statistics(&row.with(part.to_vec())));
            let distance = b.centre - a.centre;
            let spread = (a.spread + b.spread) / 2.0 + distance.square() / 4.0;
            Statistics { centre: (a.centre + b.centre) / 2.0, spread }
        };
    }),
    bug("C19", "layer_norm:forward", ALL, "variant", "Welford with the old difference twice", |r| {
        r.statistics = |row| {
            let mut mean = row.setting().number(0.0);
            let mut squares = mean;
            for (count, &x) in row.x.iter().enumerate() {
                let difference = x - mean;
                mean = mean + difference / (count as f64 + 1.0);
                squares = squares + difference * difference;
            }
            Statistics { centre: mean, spread: squares / row.x.len() as f64 }
        };
    }),
];

/// E[x²] - E[x]²
fn single_pass(row: &Row<'_>) -> Statistics {
    let centre = row.mean(|x| x);
    Statistics { centre, spread: row.mean(Number::square) - centre.square() }
}

fn below(statistics: Statistics, least: f64) -> Statistics {
    let spread = statistics.spread.map(|spread| if spread < least { 0.0 } else { spread });
    Statistics { spread, ..statistics }
}

/// The variance within parts of this length, averaged.
fn average(row: &Row<'_>, length: usize) -> Statistics {
    let within = row.x.chunks(length.max(1)).map(|part| crate::engine::statistics(&row.with(part.to_vec())).spread);
    let spreads: Vec<Number> = within.collect();
    Statistics { centre: row.mean(|x| x), spread: row.with(spreads).mean(|spread| spread) }
}
