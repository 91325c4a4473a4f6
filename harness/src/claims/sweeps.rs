//! Norms as plain loops over rows of f32: the baselines that papers compare with. No intrinsics: the compiler makes what it
//! can of each loop, with the instructions that the machine has. On one thread.

use isonorm_oracles::claims::{By, LEVEL, Norm, UNIT};
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

/// LayerNorm of rows of levels in whole numbers alone, in units: mean, variance, and Newton's square root from above until it
/// falls no further.
pub fn integer_layer_norm(x: &[i8], width: usize, y: &mut [i8]) {
    // ε in squares of levels; and bits behind the point of the reciprocal.
    const EPSILON: i64 = (EPS / (LEVEL * LEVEL) + 0.5) as i64;
    const BITS: u32 = 16;
    let units = (1.0 / UNIT) as i64;
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
                let count = width as i64;
                let sum: i32 = x.iter().map(|&x| i32::from(x)).sum();
                let squares: i32 = x.iter().map(|&x| i32::from(x) * i32::from(x)).sum();
                // Times the count, squared, so that nothing is lost before the root.
                let variance = i64::from(squares) * count - i64::from(sum) * i64::from(sum) + EPSILON * count * count;
                let root = integer_root(variance).max(1);
                let factor = (((count * units) << BITS) / root) as i32;
                let shift = ((i64::from(sum) * units) << BITS) / root;
                let half = 1 << (BITS - 1);
                let offset = (half - shift) as i32;
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = ((i32::from(x) * factor + offset) >> BITS).clamp(-128, 127) as i8;
                }
            }
        },
    );
}

/// The largest whole number whose square is no larger.
fn integer_root(value: i64) -> i64 {
    if value < 2 {
        return value.max(0);
    }
    let mut root = 1i64 << (64 - value.leading_zeros()).div_ceil(2);
    loop {
        let next = (root + value / root) / 2;
        if next >= root {
            return root;
        }
        root = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_in_whole_numbers_are_floors() {
        for value in (0..2000).chain([1 << 40, (1 << 40) - 1, i64::from(i32::MAX)]) {
            let root = integer_root(value);
            assert!(root * root <= value && value < (root + 1) * (root + 1), "{value}: {root}");
        }
    }

    #[test]
    fn there_is_a_loop_for_what_claims_name_and_none_else() {
        let (x, weight, bias) = ([1.0f32, 2.0, 3.0, 6.0], [1.0f32; 4], [0.5f32; 4]);
        let mut y = [[0.0f32; 4]; 2];
        run(Norm::Layer, By::ThreeSweeps, &x, &weight, &bias, &mut y[0]).expect("a loop");
        run(Norm::Layer, By::TwoSweeps, &x, &weight, &bias, &mut y[1]).expect("a loop");
        assert!(y[0].iter().zip(y[1]).all(|(a, b)| (a - b).abs() < 1e-6), "{y:?}");
        assert!((y[0].iter().sum::<f32>() / 4.0 - 0.5).abs() < 1e-6, "{y:?}");
        assert!(run(Norm::Rms, By::Libtorch, &x, &weight, &bias, &mut y[0]).is_err());
    }
}
