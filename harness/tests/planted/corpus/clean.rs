//! Clean kernels: right, and each computed in another way. None may ever fail.

use isonorm_kernels::abi::{Dtype, Reduction, Rsqrt};

use super::{ALL, Clean, SINGLE};
use crate::engine::{self, Point, Row, Slope, Statistic, Statistics};
use crate::number::Number;
use crate::recipe::Recipe;

/// Operators with mean and variance of their own.
const MOMENTS: &[&str] = &["layer_norm", "batch_norm:", "group_norm", "instance_norm"];
/// Everything.
const ANY: &[&str] = &[""];

pub const CLEAN: &[Clean] = &[
    clean("plain", ANY, |_| {}),
    clean("welford", MOMENTS, |r| r.statistics = welford),
    clean("merged chunks", MOMENTS, |r| r.statistics = merged),
    clean("corrected two-pass", MOMENTS, |r| {
        r.statistics = |row| {
            let Statistics { centre, .. } = engine::statistics(row);
            let count = row.x.len() as f64;
            let rest = row.sum(|x| x - centre);
            Statistics { centre, spread: (row.sum(|x| (x - centre).square()) - rest.square() / count) / count }
        };
    }),
    clean("shifted mean", MOMENTS, |r| {
        r.statistics = |row| {
            let Some(&first) = row.x.first() else { return engine::statistics(row) };
            let centre = first + row.mean(|x| x - first);
            Statistics { centre, spread: row.mean(|x| (x - centre).square()) }
        };
    }),
    clean("pairwise", ANY, |r| adding(r, pairwise)),
    clean("declared tree", ANY, |r| {
        adding(r, pairwise);
        r.reduction = Reduction::Tree;
    }),
    clean("reversed", ANY, |r| adding(r, |terms| engine::sum(&terms.iter().rev().copied().collect::<Vec<_>>()))),
    clean("eight lanes", ANY, |r| adding(r, lanes)),
    clean("declared blocks", ANY, |r| {
        adding(r, |terms| engine::sum(&terms.chunks(8).map(engine::sum).collect::<Vec<_>>()));
        r.reduction = Reduction::Blocked(8);
    }),
    clean("kahan", ANY, |r| adding(r, kahan)),
    clean("f64 accumulators", ANY, |r| r.working = |_| Dtype::F64),
    clean("f64 sums", ANY, |r| {
        adding(r, |terms| {
            let wide: Vec<Number> = terms.iter().map(|term| term.to(Dtype::F64)).collect();
            terms[0].like(engine::sum(&wide).value())
        });
    }),
    Clean {
        dtypes: SINGLE,
        ..clean("fused multiply-add", ANY, |r| {
            r.statistics = fused;
            r.affine = |normalized, weight, bias, setting| match (weight, bias) {
                (Some(weight), Some(bias)) => normalized.mul_add(weight, bias),
                (Some(weight), None) if setting.cast == "gemma" => normalized.mul_add(weight, normalized),
                _ => engine::affine(normalized, weight, bias, setting),
            };
        })
    },
    clean(
        "x·s + t",
        &[
            "layer_norm:forward",
            "batch_norm:forward",
            "inference:forward",
            "group_norm:forward",
            "instance_norm:forward",
        ],
        |r| {
            r.output = folded;
        },
    ),
    clean("weight first", ANY, |r| {
        r.output = |point| match (point.weight, &point.setting.cast[..], point.setting.statistic) {
            (_, "llama" | "gemma", _) | (None, ..) | (.., Statistic::Norm) => engine::output(point),
            (Some(weight), ..) => {
                let centred = match point.setting.statistic {
                    Statistic::Moments | Statistic::Running => point.x - point.statistics.centre,
                    _ => point.x,
                };
                let scaled = centred * (point.scale * weight);
                point.bias.map_or(scaled, |bias| scaled + bias)
            }
        };
    }),
    clean("division", &["forward"], |r| {
        r.scale = |spread, setting| match setting.statistic {
            Statistic::Norm => engine::scale(spread, setting),
            _ => (spread + setting.eps).sqrt(),
        };
        r.normalize = |x, statistics, scale, setting| match setting.statistic {
            Statistic::Moments | Statistic::Running => (x - statistics.centre) / scale,
            _ => x / scale,
        };
    }),
    clean("reciprocal of n", ANY, |r| r.quotient = |sum, count| sum * sum.like(1.0 / count as f64)),
    Clean {
        dtypes: SINGLE,
        ..clean("approximate root", &["layer_norm", "rms_norm", "batch_norm", "group_norm", "instance_norm"], |r| {
            r.rsqrt = Rsqrt::Approximate;
            r.scale = |spread, setting| refined(spread + setting.eps);
        })
    },
    clean("libtorch's gradient", &["layer_norm:backward", "group_norm:backward"], |r| r.gradient = libtorch),
    clean("textbook gradient", &["batch_norm:backward", "instance_norm:backward", "layer_norm:backward"], |r| {
        r.gradient = textbook;
    }),
    clean("threads", ANY, |r| r.parallel = true),
];

const fn clean(name: &'static str, of: &'static [&'static str], change: fn(&mut Recipe)) -> Clean {
    Clean { name, of, dtypes: ALL, change }
}

fn adding(recipe: &mut Recipe, sum: fn(&[Number]) -> Number) {
    (recipe.sum, recipe.sum_terms) = (sum, sum);
}

/// Welford 1962.
fn welford(row: &Row<'_>) -> Statistics {
    let mut mean = row.setting().number(0.0);
    let mut squares = mean;
    for (count, &x) in row.x.iter().enumerate() {
        let difference = x - mean;
        mean = mean + difference / (count as f64 + 1.0);
        squares = squares + difference * (x - mean);
    }
    Statistics { centre: mean, spread: squares / row.x.len() as f64 }
}

/// Chan, Golub, LeVeque 1979: chunks of 16, each in two passes, merged one after the other.
fn merged(row: &Row<'_>) -> Statistics {
    let mut seen = 0.0;
    let mut whole = Statistics { centre: row.setting().number(0.0), spread: row.setting().number(0.0) };
    for chunk in row.x.chunks(16) {
        let count = chunk.len() as f64;
        let chunk = row.with(chunk.to_vec());
        let Statistics { centre, .. } = engine::statistics(&chunk);
        let squares = chunk.sum(|x| (x - centre).square());
        let difference = centre - whole.centre;
        let total = seen + count;
        whole.spread = whole.spread + squares + difference.square() * (difference.like(seen) * count / total);
        whole.centre = whole.centre + difference * (difference.like(count) / total);
        seen = total;
    }
    Statistics { spread: whole.spread / seen, ..whole }
}

fn pairwise(terms: &[Number]) -> Number {
    match terms {
        [term] => *term,
        _ => {
            let (left, right) = terms.split_at(terms.len().next_power_of_two() / 2);
            pairwise(left) + pairwise(right)
        }
    }
}

/// Eight running sums, added up at the end.
fn lanes(terms: &[Number]) -> Number {
    let mut lanes = [terms[0].like(0.0); 8];
    terms.iter().enumerate().for_each(|(index, &term)| lanes[index % 8] = lanes[index % 8] + term);
    engine::sum(&lanes)
}

fn kahan(terms: &[Number]) -> Number {
    let zero = terms[0].like(0.0);
    let (mut sum, mut lost) = (zero, zero);
    for &term in terms {
        let next = term - lost;
        let total = sum + next;
        // The correction of an infinite sum would be NaN.
        lost = if total.value().is_finite() { (total - sum) - next } else { zero };
        sum = total;
    }
    sum
}

/// Squares added with one rounding each.
fn fused(row: &Row<'_>) -> Statistics {
    let own = engine::statistics(row);
    let squares = |centre: Number| row.x.iter().fold(centre.like(0.0), |sum, &x| (x - centre).mul_add(x - centre, sum));
    let count = row.x.len() as f64;
    match row.setting().statistic {
        Statistic::Moments => Statistics { spread: squares(own.centre) / count, ..own },
        Statistic::MeanSquare => Statistics { spread: squares(own.centre.like(0.0)) / count, ..own },
        Statistic::Norm => Statistics { spread: squares(own.centre.like(0.0)), ..own },
        _ => own,
    }
}

/// One multiplication and one addition for each element.
fn folded(point: &Point<'_>) -> Number {
    let slope = point.weight.map_or(point.scale, |weight| point.scale * weight);
    let shift = -(point.statistics.centre * slope);
    point.x * slope + point.bias.map_or(shift, |bias| bias + shift)
}

/// An estimate to 12 bits, then two steps of Newton's iteration.
fn refined(a: Number) -> Number {
    let root = a.sqrt().recip();
    if !root.value().is_normal() {
        return root;
    }
    let coarse = root.like(f64::from_bits(root.value().to_bits() & !((1 << 40) - 1)));
    (0..2).fold(coarse, |guess, _| guess * (guess.like(1.5) - (a * guess) * guess * 0.5))
}

/// dx = rstd·g + b·x + c, as libtorch's kernels have it.
fn libtorch(s: &Slope<'_>) -> Number {
    let mean = s.statistics.centre;
    let b = (s.sum * mean - s.sum_with_x) * s.scale * s.scale * s.scale / s.count();
    let c = -(b * mean) - s.sum * s.scale / s.count();
    s.upstream * s.scale + b * s.x + c
}

/// Through the gradients of variance and mean (Ioffe and Szegedy 2015).
fn textbook(s: &Slope<'_>) -> Number {
    let slope_of_variance = s.sum_product * s.scale * s.scale * -0.5;
    let slope_of_mean = -(s.sum * s.scale);
    let centred = s.x - s.statistics.centre;
    s.upstream * s.scale + slope_of_variance * 2.0 * centred / s.count() + slope_of_mean / s.count()
}
