//! Rows whose sums, as they are taken first, are not good enough: another pass must be taken, and the test says what
//! comes out without one.

use std::ffi::CStr;

use half::bf16;
use isonorm_kernels::abi::{Direction, Refusal};
use isonorm_kernels::typed::{Operation, Scalar, View, ViewMut, layer_norm};

use crate::common::{noise, on_each_instruction_set};

/// How far results may be off, in units of `eps * max(1, |y|)` forward, and of the largest `dx` backward.
const UNITS: f64 = 4.0;

/// The largest error, in these units; `scale` says what an error is held against.
fn error(results: &[f32], expected: &[f64], scale: impl Fn(f64) -> f64) -> f64 {
    assert_eq!(results.len(), expected.len());
    let units = |(&result, &expected): (&f32, &f64)| {
        (f64::from(result) - expected).abs() / (scale(expected) * f64::from(f32::EPSILON))
    };
    let worst = results.iter().zip(expected).map(units).fold(0.0, f64::max);
    assert!(results.iter().all(|result| result.is_finite()));
    worst
}

/// Mean and biased variance.
fn moments(x: &[f32]) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    (mean, x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n)
}

/// A row far from zero, so that sums of its elements as they are lose what they say of its spread. It has two values, so
/// that errors do not make up for each other.
fn far_row() -> Vec<f32> {
    [200.3, 199.3].into_iter().cycle().take(1 << 16).collect()
}

/// `dx` of layer normalization without a weight.
fn gradient(dy: &[f32], x: &[f32], eps: f64) -> Vec<f64> {
    let ((mean, variance), n) = (moments(x), x.len() as f64);
    let rstd = 1.0 / (variance + eps).sqrt();
    let x_hat = |x: f32| (f64::from(x) - mean) * rstd;
    let a = dy.iter().map(|&dy| f64::from(dy)).sum::<f64>() / n;
    let b = dy.iter().zip(x).map(|(&dy, &x)| f64::from(dy) * x_hat(x)).sum::<f64>() / n;
    dy.iter().zip(x).map(|(&dy, &x)| (f64::from(dy) - a - x_hat(x) * b) * rstd).collect()
}

fn backward(dy: &[f32], x: &[f32], eps: f64) -> Result<Vec<f32>, Refusal> {
    let (shape, mut dx) = ([1, x.len()], vec![0.0; x.len()]);
    Operation::new(c"layer_norm", Direction::Backward)
        .input(c"dy", &View::dense(dy, &shape)?)
        .input(c"x", &View::dense(x, &shape)?)
        .output(c"dx", &mut ViewMut::dense(&mut dx, &shape)?)
        .real(c"eps", eps)
        .integer(c"normalized_ndim", 1)
        .run()?;
    Ok(dx)
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, value| largest.max(value.abs()))
}

#[test]
fn a_row_far_from_zero_is_measured_again() {
    let (x, eps) = (far_row(), 1e-5);
    let (mean, variance) = moments(&x);
    let normalized = |mean: f64, variance: f64| {
        let rstd = 1.0 / (variance + eps).sqrt();
        x.iter().map(move |&x| (f64::from(x) - mean) * rstd)
    };
    let expected: Vec<f64> = normalized(mean, variance).collect();
    let forward = |y: &[f32]| error(y, &expected, |y| y.abs().max(1.0));
    let dy: Vec<f32> = noise(7, x.len()).into_iter().map(|dy| dy as f32).collect();
    let dx = gradient(&dy, &x, eps);
    let largest_dx = largest(&dx);
    on_each_instruction_set(|| {
        let mut y = vec![0.0; x.len()];
        layer_norm(&x, &vec![1.0; x.len()], &vec![0.0; x.len()], eps, &mut y).expect("it fits");
        assert!(forward(&y) <= UNITS, "{} units", forward(&y));
        let off = error(&backward(&dy, &x, eps).expect("it fits"), &dx, |_| largest_dx);
        assert!(off <= UNITS, "{off} units backward");
    });
    // One pass over the elements as they are, in blocks as the kernels take them: what is left of the variance has lost its
    // digits.
    let n = x.len() as f64;
    let (mut total, mut squares) = (0.0, 0.0);
    for block in x.chunks(32) {
        total += f64::from(block.iter().sum::<f32>());
        squares += f64::from(block.iter().map(|x| x * x).sum::<f32>());
    }
    let mean = total / n;
    let once: Vec<f32> = normalized(mean, squares / n - mean * mean).map(|y| y as f32).collect();
    assert!(forward(&once) > UNITS, "only {} units with one pass: the test sees nothing", forward(&once));
}

#[test]
fn products_that_sink_into_the_subnormals_are_taken_again() {
    // Of size 1e-30 and 1e-12, and with a part in common.
    let n = 256;
    let x: Vec<f32> = noise(11, n).into_iter().map(|x| (x * 1e-12) as f32).collect();
    let dy: Vec<f32> =
        noise(13, n).into_iter().zip(&x).map(|(e, &x)| (e * 1e-30 + f64::from(x) * 1e-18) as f32).collect();
    let expected = gradient(&dy, &x, 0.0);
    let largest_dx = largest(&expected);
    let off = |dx: &[f32]| error(dx, &expected, |_| largest_dx);
    on_each_instruction_set(|| {
        let dx = backward(&dy, &x, 0.0).expect("it fits");
        assert!(off(&dx) <= UNITS, "{} units", off(&dx));
    });
    // The sum of products as it comes.
    let (mean, variance) = moments(&x);
    let rstd = 1.0 / variance.sqrt();
    let product: f32 = dy.iter().zip(&x).map(|(dy, x)| dy * (x - mean as f32)).sum();
    let (a, b) = (dy.iter().map(|&dy| f64::from(dy)).sum::<f64>() / n as f64, f64::from(product) * rstd / n as f64);
    let once =
        dy.iter().zip(&x).map(|(&dy, &x)| ((f64::from(dy) - a - (f64::from(x) - mean) * rstd * b) * rstd) as f32);
    let once: Vec<f32> = once.collect();
    assert!(off(&once) > UNITS, "only {} units as it comes: the test sees nothing", off(&once));
}

/// `y`, or `dx` for `dy` alike, of rows of `width` elements.
fn normalized_rows<T: Scalar + Default + Clone>(
    operator: &CStr,
    x: &[T],
    width: usize,
    direction: Direction,
) -> Result<Vec<T>, Refusal> {
    let (shape, mut out) = ([x.len() / width, width], vec![T::default(); x.len()]);
    let (x, mut to) = (View::dense(x, &shape)?, ViewMut::dense(&mut out, &shape)?);
    let call = Operation::new(operator, direction).input(c"x", &x);
    let call = if operator == c"rms_norm" { call.text(c"cast", c"none") } else { call };
    let call = match direction {
        Direction::Forward => call.output(c"y", &mut to),
        Direction::Backward => call.input(c"dy", &x).output(c"dx", &mut to),
    };
    call.real(c"eps", 1e-6).integer(c"normalized_ndim", 1).run()?;
    Ok(out)
}

/// Rows are taken in pairs, and several are measured together: what comes out of one must not depend on its neighbours,
/// even where they go another way: where their squares overflow, or they lie far from zero.
fn check_beside_others<T: Scalar + Default + Clone + Into<f64>>(operator: &CStr, of: impl Fn(f64) -> T) {
    for width in [5, 64, 100, 768] {
        let rows = 11;
        let mut x = noise(17, rows * width);
        for row in [0, 3, 6, 7, 10] {
            x[row * width..][..width].iter_mut().for_each(|x| *x *= 1e30);
        }
        for row in [1, 4, 9] {
            x[row * width..][..width].iter_mut().for_each(|x| *x += 10.0);
        }
        // About a mean that some elements are: these show what rounding makes of it.
        for row in [2, 5, 8] {
            for (i, x) in x[row * width..][..width / 2 * 2].iter_mut().enumerate() {
                let far = (i / 2 % 65) as f64 * 1.5 / 64.0;
                *x = 0.375 + if i % 2 == 0 { far } else { -far };
            }
        }
        let x: Vec<T> = x.into_iter().map(&of).collect();
        for direction in [Direction::Forward, Direction::Backward] {
            on_each_instruction_set(|| {
                let together = normalized_rows(operator, &x, width, direction).expect("it fits");
                for (row, together) in together.chunks(width).enumerate() {
                    let alone =
                        normalized_rows(operator, &x[row * width..][..width], width, direction).expect("it fits");
                    let bits = |values: &[T]| -> Vec<u64> {
                        values.iter().map(|value| Into::<f64>::into(value.clone()).to_bits()).collect()
                    };
                    assert!(alone.iter().all(|alone| Into::<f64>::into(alone.clone()).is_finite()));
                    assert_eq!(bits(&alone), bits(together), "row {row} of {width} elements, {operator:?} {direction}");
                }
            });
        }
    }
}

#[test]
fn a_row_has_the_same_bits_beside_any_other() {
    for operator in [c"rms_norm", c"layer_norm"] {
        check_beside_others(operator, |x| x as f32);
        check_beside_others(operator, bf16::from_f64);
    }
}

/// The instruction that rounds to bfloat16 takes subnormal numbers for zeros: they must go another way.
#[test]
fn what_is_subnormal_in_bfloat16_stays() {
    let width = 96;
    let mut x = vec![bf16::ZERO; 2 * width];
    // The root mean square is near 1, so that small elements stay as they are, but for the last digit.
    for (row, sign) in [(0, 1.0), (1, -1.0)] {
        for (i, x) in x[row * width..][..width].iter_mut().enumerate() {
            let small = i % 3 == 0;
            *x = bf16::from_f64(sign * if small { 2f64.powi(-130) * (1 + i % 7) as f64 } else { 1.2247 });
        }
    }
    on_each_instruction_set(|| {
        let y = normalized_rows(c"rms_norm", &x, width, Direction::Forward).expect("it fits");
        for (i, (x, y)) in x.iter().zip(&y).enumerate().filter(|(i, _)| i % width % 3 == 0) {
            let ratio = y.to_f64() / x.to_f64();
            // Three to seven bits are left of them.
            assert!((0.8..1.25).contains(&ratio), "element {i}: {x:e} became {y:e}");
        }
    });
}
