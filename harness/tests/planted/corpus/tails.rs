//! T: tails, alignment, padding.

use std::sync::Arc;

use isonorm_kernels::abi::Tensor;

use super::layout::entries;
use super::{ALL, Bug, bug};
use crate::engine::{self, Row, Statistics};
use crate::geometry::Entry;
use crate::memory;
use crate::number::Number;

/// Lanes of a vector, in these bugs.
const LANES: usize = 8;

pub const BUGS: &[Bug] = &[
    bug("T01", "layer_norm:forward", ALL, "triton #9838", "padded lanes add (0 - mean)² to the variance", |r| {
        r.statistics = |row| {
            let Statistics { centre, spread } = engine::statistics(row);
            let padding = row.x.len().next_multiple_of(LANES) - row.x.len();
            Statistics { centre, spread: spread + centre.square() * padding as f64 / row.x.len() as f64 }
        };
    }),
    bug("T02", "rms_norm:forward", ALL, "quack 9310d47", "the last vector overlaps and counts twice", |r| {
        r.statistics = |row| {
            let rest = row.x.len() % LANES;
            let mut x = row.x.clone();
            if rest != 0 && row.x.len() > LANES {
                x.extend_from_slice(&row.x[row.x.len() - LANES..row.x.len() - rest]);
            }
            let total = row.with(x).sum(|x| x.square());
            Statistics { centre: total.like(0.0), spread: total / row.x.len() as f64 }
        };
    }),
    bug("T03", "group_norm:forward", ALL, "FlagGems #4984", "count of a group rounded up to a power of two", |r| {
        r.quotient = |sum, count| sum / count.next_power_of_two() as f64;
    }),
    bug("T03b", "group_norm:forward", ALL, "variant", "channels per group rounded down to a power of two", |r| {
        r.groups = |geometry| {
            let groups = geometry.groups();
            let Some(channels) = groups.first().map(|group| group.len() / geometry.inner.max(1)) else { return groups };
            let kept = channels.max(1).next_power_of_two() / if channels.is_power_of_two() { 1 } else { 2 };
            groups.iter().map(|group| group.iter().copied().take(kept * geometry.inner).collect()).collect()
        };
    }),
    bug("T04", "instance_norm:forward", ALL, "tt-metal #52685", "positions padded with zeros to vectors", |r| {
        r.statistics = |row| {
            let padded = row.x.len().next_multiple_of(LANES);
            let mut x = row.x.clone();
            x.resize(padded, row.setting().number(0.0));
            engine::statistics(&row.with(x))
        };
    }),
    bug("T05", "layer_norm:forward", ALL, "llama.cpp PR #26708", "the last partial vector left out of the sums", |r| {
        r.sum = |terms| engine::sum(whole(terms));
    }),
    bug("T05b", "batch_norm:backward", ALL, "variant", "the last partial vector left out of the sums", |r| {
        r.sum = |terms| engine::sum(whole(terms));
    }),
    bug("T06", "rms_norm:forward", ALL, "ggml (llama 16558)", "the tail without its weight", |r| {
        r.output = |point| {
            let row = point.setting.geometry.inner;
            if point.index >= row / LANES * LANES {
                return engine::normalize(point.x, point.statistics, point.scale, point.setting);
            }
            engine::output(point)
        };
    }),
    bug("T07", "layer_norm:forward", ALL, "ROCm/aiter #5044", "odd rows store one element too many", |r| {
        r.output_offsets = |tensor| {
            let mut offsets = engine::offsets(tensor);
            if tensor.shape.last().is_some_and(|size| size % 2 == 1)
                && let Some(last) = offsets.last_mut()
            {
                *last += 1;
            }
            offsets
        };
    }),
    bug("T09", "rms_norm:forward", ALL, "TransformerEngine #886", "base address rounded down to 16 bytes", |r| {
        r.input_offsets = |tensor| {
            let stray = isize::from(!(tensor.data as usize).is_multiple_of(16));
            engine::offsets(tensor).into_iter().map(|offset| offset - stray).collect()
        };
    }),
    bug("T10", "layer_norm:backward", ALL, "TransformerEngine #34", "reads a row more than there is", |r| {
        r.input_offsets = |tensor| {
            let mut offsets = engine::offsets(tensor);
            if tensor.shape.len() > 1 && tensor.shape[0] % 4 == 3 {
                offsets.rotate_left(1);
                stray(tensor, &mut offsets);
            }
            offsets
        };
    }),
    bug("T11", "rms_norm:forward", ALL, "onnxruntime PR #17943", "odd rows: reads one element past the end", |r| {
        r.input_offsets = |tensor| {
            let mut offsets = engine::offsets(tensor);
            if tensor.shape.last().is_some_and(|size| size % 2 == 1) {
                stray(tensor, &mut offsets);
            }
            offsets
        };
    }),
    bug(
        "T13",
        "batch_norm_inference:forward",
        ALL,
        "oneDNN 4910ce3",
        "channels of the last block take its first weight",
        |r| {
            r.groups = |geometry| {
                let whole = geometry.channels / LANES * LANES;
                entries(geometry, |entry| Entry {
                    param: if entry.param < whole { entry.param } else { whole },
                    ..entry
                })
            };
        },
    ),
    bug(
        "T14",
        "layer_norm:forward",
        ALL,
        "ml-explore/mlx PR #3792",
        "rows of 257 to 512: two share a reduction",
        |r| {
            r.statistics = |row| {
                let (own, other) = (engine::statistics(row), engine::statistics(&row.other(row.index ^ 1)));
                if (257..=512).contains(&row.x.len()) { Statistics { spread: other.spread, ..own } } else { own }
            };
        },
    ),
    bug("T15", "rms_norm:forward", ALL, "ggml (llama 21251)", "statistics of the first 1,024 entries", |r| {
        r.statistics = |row| engine::statistics(&row.with(row.x[..row.x.len().min(1024)].to_vec()));
    }),
    bug("T16", "rms_norm:backward", ALL, "attorch #18", "dweight: rows after the last block of 4 missing", |r| {
        r.sum_terms = |terms| match terms.len() / 4 * 4 {
            0 => terms[0].like(0.0),
            whole => engine::sum(&terms[..whole]),
        };
    }),
    bug("T17", "layer_norm:backward", ALL, "variant", "dbias: the first row counts twice if rows are odd", |r| {
        r.sum_terms = |terms| match terms.len() % 2 {
            1 => engine::sum(terms) + terms[0],
            _ => engine::sum(terms),
        };
    }),
    bug("T18", "partial_rms_norm:forward", ALL, "variant", "the first entries in whole vectors only", |r| {
        r.inputs = |_, setting| setting.head.1 = setting.head.1.next_multiple_of(LANES);
    }),
    bug("T19", "crms_norm:forward", ALL, "variant", "the last partial vector left out of the sums", |r| {
        r.sum = |terms| engine::sum(whole(terms));
    }),
    bug("T20", "instance_norm:backward", ALL, "variant", "padded lanes have dy = dy of the last", |r| {
        r.gradient = |slope| {
            let count = slope.row.x.len();
            let padding = (count.next_multiple_of(LANES) - count) as f64;
            let last = slope.upstream * padding;
            let sum = slope.sum + last;
            (slope.upstream - sum / count as f64 - slope.normalized * (slope.sum_product / count as f64)) * slope.scale
        };
    }),
    bug("T21", "layer_norm:forward", ALL, "METR: skipped rows", "every 16th row is a copy of the one before", |r| {
        r.outputs = |outputs, _, setting| {
            let length = setting.geometry.inner.max(1);
            let mut y = outputs.of("y").to_vec();
            for row in (15..setting.geometry.outer).step_by(16) {
                y.copy_within((row - 1) * length..row * length, row * length);
            }
            outputs.set("y", y);
        };
    }),
    bug("T22", "add_layer_norm:forward", ALL, "flashinfer #634", "statistics of the first 4,096 entries", |r| {
        r.statistics = |row| engine::statistics(&row.with(row.x[..row.x.len().min(4096)].to_vec()));
    }),
    bug("T23", "partial_rms_norm:forward", ALL, "flashinfer #718", "rows beyond 12,288 entries not computed", |r| {
        r.groups = |geometry| if geometry.inner > 12_288 { Vec::new() } else { geometry.groups() };
    }),
    bug(
        "T24",
        "layer_norm:forward",
        ALL,
        "pytorch PR #186235",
        "x and y aligned unlike: the first entry of y is lost",
        |r| {
            r.around = Some(Arc::new(|call, compute| {
                compute(call)?;
                let (x, y) = (call.required_input("x")?, call.required_output("y")?);
                if !(x.data as usize ^ y.data as usize).is_multiple_of(16) && !y.is_empty() {
                    memory::write(&y, std::iter::once((0, 0.0)));
                }
                Ok(())
            }));
        },
    ),
    bug("R02", "layer_norm:forward", ALL, "flashinfer PR #3607", "every 8th row: variance of the row before", |r| {
        r.statistics = |row| with_other(row, row.index % 8 == 7, row.index.wrapping_sub(1));
    }),
    bug("R10", "group_norm:forward", ALL, "llama.cpp #3057", "the last group centred by the mean of the first", |r| {
        r.statistics = |row| {
            if row.index == 0 || row.index + 1 < row.groups() {
                return engine::statistics(row);
            }
            let centre = engine::statistics(&row.other(0)).centre;
            Statistics { centre, spread: row.mean(|x| (x - centre).square()) }
        };
    }),
];

/// The terms in whole vectors; all if there is none.
fn whole(terms: &[Number]) -> &[Number] {
    match terms.len() / LANES * LANES {
        0 => terms,
        whole => &terms[..whole],
    }
}

/// Makes the last read go one element past the end.
fn stray(tensor: &Tensor<'_>, offsets: &mut [isize]) {
    if let Some(last) = offsets.last_mut() {
        *last = engine::offsets(tensor).last().map_or(0, |end| end + 1);
    }
}

fn with_other(row: &Row<'_>, stale: bool, other: usize) -> Statistics {
    let own = engine::statistics(row);
    let spread = if stale { engine::statistics(&row.other(other)).spread } else { own.spread };
    Statistics { spread, ..own }
}
