//! Norms as plain loops over rows of f32: the baselines that papers compare with. No intrinsics: the compiler makes what it
//! can of each loop, with the instructions that the machine has. On one thread.

use isonorm_oracles::claims::{By, Norm};
use pulp::Arch;

use super::norms::{EPS, head};

/// Sums are taken in so many parts, as any vectorized loop does.
const PARTS: usize = 32;

/// Computes a norm of rows: `y = (x - mean) · scale · weight + bias`, with what the norm has of these.
///
/// # Errors
/// If there is no loop for this norm in this way.
pub fn run(norm: Norm, by: By, x: &[f32], weight: &[f32], bias: &[f32], y: &mut [f32]) -> Result<(), String> {
    let width = weight.len();
    match (norm, by) {
        (Norm::Layer, By::ThreeSweeps) => rows(x, weight, bias, y, |x| {
            let mean = sum(x, |x| x) / x.len() as f32;
            let squares = sum(x, |x| (x - mean) * (x - mean));
            (mean, scale(squares, x.len()))
        }),
        (Norm::Layer, By::TwoSweeps) => rows(x, weight, bias, y, |x| {
            // About the first entry, so that little cancels.
            let shift = x[0];
            let [sum, squares] = sums(x, |x| [x - shift, (x - shift) * (x - shift)]);
            let mean = sum / x.len() as f32;
            (shift + mean, scale(squares - sum * mean, x.len()))
        }),
        (Norm::Rms, By::TwoSweeps) => rows(x, weight, bias, y, |x| (0.0, scale(sum(x, |x| x * x), x.len()))),
        (Norm::PartialRms(share), By::TwoSweeps) => {
            let head = head(share, width);
            rows(x, weight, bias, y, |x| (0.0, scale(sum(&x[..head], |x| x * x), head)));
        }
        (Norm::CompressedRms, By::TwoSweeps) => rows(x, weight, bias, y, |x| {
            let [sum, squares] = sums(x, |x| [x, x * x]);
            (0.0, scale(squares + sum * sum, x.len() + 1))
        }),
        (Norm::Affine, By::TwoSweeps) => rows(x, weight, bias, y, |_| (0.0, 1.0)),
        _ => return Err(format!("there is no loop for {norm:?} by {by:?}")),
    }
    Ok(())
}

/// Row by row: mean and scale, then what is written.
fn rows(x: &[f32], weight: &[f32], bias: &[f32], y: &mut [f32], moments: impl Fn(&[f32]) -> (f32, f32)) {
    let width = weight.len();
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
                let (mean, scale) = moments(x);
                for (((y, x), weight), bias) in y.iter_mut().zip(x).zip(weight).zip(bias) {
                    *y = (x - mean) * scale * weight + bias;
                }
            }
        },
    );
}

#[inline(always)]
fn scale(squares: f32, count: usize) -> f32 {
    1.0 / (squares / count as f32 + EPS as f32).sqrt()
}

#[inline(always)]
fn sum(x: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let [sum] = sums(x, |x| [of(x)]);
    sum
}

/// Several sums in one go.
#[inline(always)]
fn sums<const N: usize>(x: &[f32], of: impl Fn(f32) -> [f32; N]) -> [f32; N] {
    let mut parts = [[0.0f32; PARTS]; N];
    let (whole, rest) = x.as_chunks::<PARTS>();
    for chunk in whole {
        for place in 0..PARTS {
            let terms = of(chunk[place]);
            for (parts, term) in parts.iter_mut().zip(terms) {
                parts[place] += term;
            }
        }
    }
    for &entry in rest {
        for (parts, term) in parts.iter_mut().zip(of(entry)) {
            parts[0] += term;
        }
    }
    parts.map(|parts| parts.iter().sum())
}
