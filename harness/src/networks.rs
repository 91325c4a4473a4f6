//! Properties of networks at initialization: what papers say about depth, measured, with the prediction beside it.
//!
//! Each layer's branch is a matrix of independent normal numbers over √width, which is what the papers' derivations have too.

use isonorm_reports::record::{Experiment, Number, Series};
use tch::{Kind, TchError, Tensor};

use crate::generate::Random;

/// Entries of the stream, and how many independent streams are averaged.
const WIDTH: i64 = 512;
const STREAMS: i64 = 32;
/// Independent networks where one is not enough.
const NETWORKS: u64 = 8;
const LAYERS: usize = 32;

/// A statement about depth, and how it is measured.
struct Statement {
    name: &'static str,
    statement: &'static str,
    paper: &'static str,
    axes: [&'static str; 2],
    /// What measurement and prediction may be apart, as a factor.
    within: f64,
    series: fn(Random) -> Result<Vec<Series>, TchError>,
}

/// Every statement.
static STATEMENTS: [Statement; 5] = [
    Statement {
        name: "output_variance",
        statement: "the variance of the stream grows linearly with depth in Pre-LN and Peri-LN networks, as the harmonic numbers \
            with LayerNorm Scaling, not at all in Post-LN and DeepNorm networks; without normalization it doubles with every \
            layer, and stays below e times the start if branches are scaled by 1/√depth",
        paper: "Xiong et al., arXiv:2002.04745; Peri-LN, arXiv:2502.02732; The Curse of Depth, arXiv:2502.05795; DeepNet, \
            arXiv:2203.00555; Fixup, arXiv:1901.09321",
        axes: ["layers", "variance of the stream"],
        within: 1.15,
        series: output_variance,
    },
    Statement {
        name: "gradient_by_layer",
        statement: "the gradient of the stream grows towards the input as √((L + 1) / (l + 1)) in Pre-LN networks, stays as it is in \
            Post-LN networks, and does the one after the other in Mix-LN networks, whose first quarter is Post-LN; with linear \
            branches and to first order in layers over width",
        paper: "follows from Xiong et al., arXiv:2002.04745, for linear branches; Mix-LN, arXiv:2412.13795",
        axes: ["layer", "gradient of the stream, relative to the last layer"],
        within: 1.15,
        series: gradient_by_layer,
    },
    Statement {
        name: "gradient_of_the_last_layer",
        statement: "the gradient of the last layer's weights falls as 1/√L with the depth L of a Pre-LN network (with a final \
            norm), and does not depend on that of a Post-LN network",
        paper: "Xiong et al., arXiv:2002.04745, theorem 1",
        axes: ["layers", "gradient of the last weights, relative to one layer"],
        within: 1.15,
        series: last_layer,
    },
    Statement {
        name: "fixup_step",
        statement: "without any normalization, one step of gradient descent changes the output of a residual network alike at every \
            depth if the last matrix of each branch of two begins at zero and the other is scaled by 1/√L; unscaled, the \
            change grows as the depth L",
        paper: "Fixup, arXiv:1901.09321, section 3 (m = 2 layers in a branch)",
        axes: ["layers", "change of the output over rate times gradient, relative to one layer's"],
        within: 1.15,
        series: fixup_step,
    },
    Statement {
        name: "orthogonal_batch_norm",
        statement: "gradients of a linear network of 1,000 layers with orthogonal weights and BatchNorm (without its mean) are \
            bounded; with normal weights they explode",
        paper: "Towards Training Without Depth Limits: Batch Normalization Without Gradient Explosion, arXiv:2310.02012",
        axes: ["layers from the output", "gradient, relative to the last layer"],
        within: 10.0,
        series: orthogonal_batch_norm,
    },
];

/// Measures all of them.
///
/// # Errors
/// What libtorch says.
pub fn measure(seed: u64) -> Result<Vec<Experiment>, TchError> {
    let random = Random::new(seed).named("networks");
    STATEMENTS
        .iter()
        .map(|statement| {
            let series = (statement.series)(random.named(statement.name))?;
            let agrees = series.iter().all(|series| {
                series.measured.iter().zip(&series.predicted).all(|((_, measured), (_, predicted))| {
                    (measured.0 / predicted.0).ln().abs() <= statement.within.ln()
                })
            });
            let [x, y] = statement.axes.map(str::to_owned);
            Ok(Experiment {
                name: statement.name.to_owned(),
                statement: statement.statement.to_owned(),
                paper: statement.paper.to_owned(),
                x,
                y,
                series,
                within: Number(statement.within),
                agrees,
            })
        })
        .collect()
}

/// Normal numbers.
fn normal(random: Random, rows: i64, columns: i64) -> Tensor {
    let numbers: Vec<f64> = (0..(rows * columns) as u64).map(|place| random.normal(2 * place)).collect();
    Tensor::from_slice(&numbers).reshape([rows, columns])
}

fn matrix(random: Random, layer: usize) -> Result<Tensor, TchError> {
    normal(random.named("matrix").child(layer as u64), WIDTH, WIDTH).f_div_scalar((WIDTH as f64).sqrt())
}

/// LayerNorm of every column, and the deviations.
fn layer_norm(x: &Tensor) -> Result<(Tensor, Tensor), TchError> {
    let centred = x.f_sub(&x.f_mean_dim([0i64].as_slice(), true, Kind::Double)?)?;
    let deviation = centred.f_square()?.f_mean_dim([0i64].as_slice(), true, Kind::Double)?.f_sqrt()?;
    Ok((centred.f_div(&deviation)?, deviation))
}

/// The gradient of LayerNorm's input from that of its output.
fn layer_norm_backward(gradient: &Tensor, (xhat, deviation): &(Tensor, Tensor)) -> Result<Tensor, TchError> {
    let mean = |x: &Tensor| x.f_mean_dim([0i64].as_slice(), true, Kind::Double);
    let along = xhat.f_mul(&mean(&gradient.f_mul(xhat)?)?)?;
    gradient.f_sub(&mean(gradient)?)?.f_sub(&along)?.f_div(deviation)
}

fn mean_square(x: &Tensor) -> Result<f64, TchError> {
    f64::try_from(&x.f_square()?.f_mean(Kind::Double)?)
}

fn line(values: impl IntoIterator<Item = f64>, first: usize) -> Vec<(Number, Number)> {
    values.into_iter().enumerate().map(|(place, value)| (Number((place + first) as f64), Number(value))).collect()
}

fn output_variance(random: Random) -> Result<Vec<Series>, TchError> {
    type Step = fn(&Tensor, &Tensor, usize) -> Result<Tensor, TchError>;
    type Predicted = fn(usize) -> f64;
    let kinds: [(&str, Step, Predicted); 7] = [
        ("Pre-LN", |x, w, _| x.f_add(&w.f_matmul(&layer_norm(x)?.0)?), |l| 1.0 + l as f64),
        ("Peri-LN", |x, w, _| x.f_add(&layer_norm(&w.f_matmul(&layer_norm(x)?.0)?)?.0), |l| 1.0 + l as f64),
        (
            "LayerNorm Scaling",
            |x, w, layer| x.f_add(&w.f_matmul(&layer_norm(x)?.0)?.f_div_scalar((layer as f64).sqrt())?),
            |l| 1.0 + (1..=l).map(|l| 1.0 / l as f64).sum::<f64>(),
        ),
        ("Post-LN", |x, w, _| Ok(layer_norm(&x.f_add(&w.f_matmul(x)?)?)?.0), |_| 1.0),
        ("DeepNorm", |x, w, _| deep_norm(x, w), |_| 1.0),
        (
            "scaled as in Fixup",
            |x, w, _| x.f_add(&w.f_matmul(x)?.f_div_scalar((LAYERS as f64).sqrt())?),
            |l| (1.0 + 1.0 / LAYERS as f64).powi(l as i32),
        ),
        ("no norm", |x, w, _| x.f_add(&w.f_matmul(x)?), |l| 2f64.powi(l as i32)),
    ];
    let series = kinds.iter().map(|(name, step, predicted)| {
        let random = random.named(name);
        let mut x = layer_norm(&normal(random, WIDTH, STREAMS))?.0;
        let mut measured = vec![mean_square(&x)?];
        for layer in 1..=LAYERS {
            x = step(&x, &matrix(random, layer)?, layer)?;
            measured.push(mean_square(&x)?);
        }
        let predicted = line((0..=LAYERS).map(predicted), 0);
        Ok(Series { name: (*name).to_owned(), measured: line(measured, 0), predicted })
    });
    series.collect()
}

/// `LayerNorm(α x + β w x)` with DeepNet's constants for an encoder of [`LAYERS`].
fn deep_norm(x: &Tensor, w: &Tensor) -> Result<Tensor, TchError> {
    let (alpha, beta) = ((2.0 * LAYERS as f64).powf(0.25), (8.0 * LAYERS as f64).powf(-0.25));
    Ok(layer_norm(&x.f_mul_scalar(alpha)?.f_add(&w.f_matmul(x)?.f_mul_scalar(beta)?)?)?.0)
}

fn gradient_by_layer(random: Random) -> Result<Vec<Series>, TchError> {
    // From which layer on they are Pre-LN.
    let series = [("Pre-LN", 0), ("Post-LN", LAYERS), ("Mix-LN", LAYERS / 4)].map(|(name, post)| {
        // Mean squares, relative to the last layer, over independent networks: one alone wanders by √(layers / width).
        let mut squares = vec![0.0; LAYERS + 1];
        for network in 0..NETWORKS {
            let gradients = gradients(random.named(name).child(network), post)?;
            let last = gradients[LAYERS];
            squares.iter_mut().zip(gradients).for_each(|(sum, square)| *sum += square / last / NETWORKS as f64);
        }
        let variance = |l: usize| (l.max(post) - post + 1) as f64;
        let predicted = |l: usize| (variance(LAYERS) / variance(l)).sqrt();
        Ok(Series {
            name: name.to_owned(),
            measured: line(squares.into_iter().map(f64::sqrt), 0),
            predicted: line((0..=LAYERS).map(predicted), 0),
        })
    });
    series.into_iter().collect()
}

/// The mean squares of the gradients of the stream before each layer and after the last, of a random gradient of the output.
/// The first `post` layers are Post-LN, the others Pre-LN.
fn gradients(random: Random, post: usize) -> Result<Vec<f64>, TchError> {
    let mut x = layer_norm(&normal(random, WIDTH, STREAMS))?.0;
    let mut layers = Vec::new();
    for layer in 1..=LAYERS {
        let (w, pre) = (matrix(random, layer)?, layer > post);
        let norm = if pre { layer_norm(&x)? } else { layer_norm(&x.f_add(&w.f_matmul(&x)?)?)? };
        x = if pre { x.f_add(&w.f_matmul(&norm.0)?)? } else { norm.0.shallow_clone() };
        layers.push((w, norm, pre));
    }
    let mut gradient = normal(random.named("dy"), WIDTH, STREAMS);
    let mut found = vec![mean_square(&gradient)?];
    for (w, norm, pre) in layers.iter().rev() {
        gradient = if *pre {
            gradient.f_add(&layer_norm_backward(&w.f_tr()?.f_matmul(&gradient)?, norm)?)?
        } else {
            let inner = layer_norm_backward(&gradient, norm)?;
            inner.f_add(&w.f_tr()?.f_matmul(&inner)?)?
        };
        found.push(mean_square(&gradient)?);
    }
    found.reverse();
    Ok(found)
}

fn last_layer(random: Random) -> Result<Vec<Series>, TchError> {
    let series = [("Pre-LN", true), ("Post-LN", false)].map(|(name, pre)| {
        let random = random.named(name);
        let dy = normal(random.named("dy"), WIDTH, STREAMS);
        let mut x = layer_norm(&normal(random, WIDTH, STREAMS))?.0;
        let mut measured = Vec::new();
        for layer in 1..=LAYERS {
            let w = matrix(random, layer)?;
            let read = if pre { layer_norm(&x)?.0 } else { x.shallow_clone() };
            let sum = x.f_add(&w.f_matmul(&read)?)?;
            // Both end in a norm: Pre-LN networks in one of their own.
            let end = layer_norm(&sum)?;
            let gradient = layer_norm_backward(&dy, &end)?.f_matmul(&read.f_tr()?)?;
            measured.push(mean_square(&gradient)?.sqrt());
            x = if pre { sum } else { end.0 };
        }
        let first = measured[0];
        measured.iter_mut().for_each(|norm| *norm /= first);
        let predicted = |l: usize| if pre { (2.0 / (l + 1) as f64).sqrt() } else { 1.0 };
        Ok(Series {
            name: name.to_owned(),
            measured: line(measured, 1),
            predicted: line((1..=LAYERS).map(predicted), 1),
        })
    });
    series.into_iter().collect()
}

/// One stream of `x + V W x`, where every `V` begins at zero: then the gradient of `V` is that of the output times `W x`.
fn fixup_step(random: Random) -> Result<Vec<Series>, TchError> {
    const RATE: f64 = 1e-6;
    const DEPTHS: [usize; 6] = [1, 2, 4, 8, 16, LAYERS];
    let series = [("Fixup", true), ("unscaled", false)].map(|(name, scaled)| {
        let random = random.named(name);
        let (start, dy) = (normal(random, WIDTH, 1), normal(random.named("dy"), WIDTH, 1));
        let one = mean_square(&start)? * WIDTH as f64 * mean_square(&dy)?.sqrt();
        let measured = DEPTHS.map(|depth| {
            let scale = if scaled { 1.0 / (depth as f64).sqrt() } else { 1.0 };
            let mut x = start.shallow_clone();
            for layer in 0..depth {
                let w = matrix(random.child(depth as u64), layer)?.f_mul_scalar(scale)?;
                let step = dy.f_matmul(&w.f_matmul(&start)?.f_tr()?)?.f_mul_scalar(-RATE)?;
                x = x.f_add(&step.f_matmul(&w.f_matmul(&x)?)?)?;
            }
            Ok((Number(depth as f64), Number(mean_square(&x.f_sub(&start)?)?.sqrt() / (RATE * one))))
        });
        let predicted = DEPTHS.map(|depth| (Number(depth as f64), Number(if scaled { 1.0 } else { depth as f64 })));
        let measured = measured.into_iter().collect::<Result<_, TchError>>()?;
        Ok(Series { name: name.to_owned(), measured, predicted: predicted.to_vec() })
    });
    series.into_iter().collect()
}

fn orthogonal_batch_norm(random: Random) -> Result<Vec<Series>, TchError> {
    const SIZE: i64 = 24;
    const DEPTH: usize = 1000;
    let over_batch = |x: &Tensor| x.f_mean_dim([1i64].as_slice(), true, Kind::Double);
    let series = [("orthogonal", true), ("normal", false)].map(|(name, orthogonal)| {
        let random = random.named(name);
        let mut x = normal(random, SIZE, SIZE);
        let mut layers = Vec::new();
        for layer in 0..DEPTH {
            let numbers = normal(random.child(layer as u64), SIZE, SIZE);
            let w = if orthogonal { Tensor::f_linalg_qr(&numbers, "reduced")?.0 } else { numbers };
            let z = w.f_matmul(&x)?;
            let root = over_batch(&z.f_square()?)?.f_sqrt()?;
            x = z.f_div(&root)?;
            layers.push((w, root, x.shallow_clone()));
        }
        let mut gradient = normal(random.named("dy"), SIZE, SIZE);
        let mut measured = vec![1.0];
        let last = mean_square(&gradient)?.sqrt();
        for (w, root, y) in layers.iter().rev() {
            let along = y.f_mul(&over_batch(&gradient.f_mul(y)?)?)?;
            gradient = w.f_tr()?.f_matmul(&gradient.f_sub(&along)?.f_div(root)?)?;
            measured.push(mean_square(&gradient)?.sqrt() / last);
        }
        // Nothing is predicted for normal weights but that it is not bounded.
        let predicted = if orthogonal { line(std::iter::repeat_n(1.0, DEPTH + 1), 0) } else { Vec::new() };
        Ok(Series { name: name.to_owned(), measured: line(measured, 0), predicted })
    });
    series.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_what_is_predicted() {
        tch::set_num_threads(1);
        for found in measure(1).expect("libtorch can") {
            assert!(found.agrees, "{}: {:?}", found.name, found.series);
            // A network of another kind is not taken for it.
            let ends: Vec<f64> = found.series.iter().filter_map(|series| Some(series.measured.last()?.1.0)).collect();
            let starts: Vec<f64> =
                found.series.iter().filter_map(|series| Some(series.measured.first()?.1.0)).collect();
            let apart = |values: &[f64]| values.iter().any(|value| (value / values[0]).ln().abs() > 0.3);
            assert!(apart(&ends) || apart(&starts), "{}: all kinds look alike", found.name);
        }
    }
}
