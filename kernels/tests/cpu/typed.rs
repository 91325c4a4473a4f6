//! The typed way in: same answers as by definition, and nothing that reaches beyond a slice.

use half::bf16;
use isonorm_kernels::abi::{Direction, Refusal};
use isonorm_kernels::typed::{Operation, View, ViewMut, add_layer_norm, add_rms_norm, layer_norm, rms_norm};

const EPS: f64 = 1e-3;

/// Layer (`centred`) or root-mean-square normalization of one row in f64.
fn expected(x: &[f32], weight: &[f32], bias: &[f32], centred: bool) -> Vec<f64> {
    let n = x.len() as f64;
    let mean = if centred { x.iter().map(|&x| f64::from(x)).sum::<f64>() / n } else { 0.0 };
    let square = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    let y = |((&x, &w), &b)| (f64::from(x) - mean) / (square + EPS).sqrt() * f64::from(w) + f64::from(b);
    x.iter().zip(weight).zip(bias).map(y).collect()
}

fn assert_close(y: &[f32], expected: &[f64]) {
    assert_eq!(y.len(), expected.len());
    for (y, expected) in y.iter().zip(expected) {
        assert!((f64::from(*y) - expected).abs() < 1e-5, "{y} instead of {expected}");
    }
}

struct Problem {
    x: Vec<f32>,
    residual: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    y: Vec<f32>,
    sum: Vec<f32>,
}

const D: usize = 37;

/// Three rows.
fn problem() -> Problem {
    let values = |n: usize, step: f32| (0..n).map(|i| (i as f32 * step).sin() * 2.0 + 0.5).collect::<Vec<f32>>();
    Problem {
        x: values(3 * D, 0.7),
        residual: values(3 * D, 1.3),
        weight: values(D, 0.3),
        bias: values(D, 0.2),
        y: vec![0.0; 3 * D],
        sum: vec![0.0; 3 * D],
    }
}

#[test]
fn slices_are_normalized_row_by_row() -> Result<(), Refusal> {
    let Problem { x, residual, weight, bias, mut y, mut sum } = problem();
    let none = vec![0.0; D];
    let check = |x: &[f32], y: &[f32], bias: &[f32], centred| {
        for (x, y) in x.chunks(D).zip(y.chunks(D)) {
            assert_close(y, &expected(x, &weight, bias, centred));
        }
    };
    layer_norm(&x, &weight, &bias, EPS, &mut y)?;
    check(&x, &y, &bias, true);
    rms_norm(&x, &weight, EPS, &mut y)?;
    check(&x, &y, &none, false);
    let h: Vec<f32> = x.iter().zip(&residual).map(|(x, r)| x + r).collect();
    add_layer_norm(&x, &residual, &weight, &bias, EPS, &mut y, &mut sum)?;
    assert_eq!(sum, h);
    check(&h, &y, &bias, true);
    sum.fill(0.0);
    add_rms_norm(&x, &residual, &weight, EPS, &mut y, &mut sum)?;
    assert_eq!(sum, h);
    check(&h, &y, &none, false);
    Ok(())
}

#[test]
fn views_take_strides_gradients_and_threads() -> Result<(), Refusal> {
    let Problem { x, weight, .. } = problem();
    // Every other row of a tensor of 6, written to every third.
    let wide: Vec<f32> = x.chunks(D).flat_map(|row| [row, &[f32::NAN; D]].concat()).collect();
    let mut y = vec![7.0; 9 * D];
    Operation::new(c"rms_norm", Direction::Forward)
        .input(c"x", &View::strided(&wide, &[3, D], &[2 * D, 1])?)
        .input(c"weight", &View::dense(&weight, &[D])?)
        .output(c"y", &mut ViewMut::strided(&mut y, &[3, D], &[3 * D, 1])?)
        .real(c"eps", EPS)
        .integer(c"normalized_ndim", 1)
        .text(c"cast", c"none")
        .threads(2)
        .run()?;
    for (row, x) in y.chunks(3 * D).zip(x.chunks(D)) {
        assert_close(&row[..D], &expected(x, &weight, &[0.0; D], false));
        assert!(row[D..].iter().all(|&y| y == 7.0), "written between the rows");
    }
    // The gradient of the bias is the sum of dy; a weight of half precision may be left out.
    let dy = [bf16::ONE; 6];
    let (mut dx, mut dbias) = ([bf16::ONE; 6], [bf16::ZERO; 3]);
    Operation::new(c"layer_norm", Direction::Backward)
        .input(c"dy", &View::dense(&dy, &[2, 3])?)
        .input(c"x", &View::dense(&[1.0, 2.0, 3.0, 4.0, 6.0, 5.0].map(bf16::from_f32), &[2, 3])?)
        .output(c"dx", &mut ViewMut::dense(&mut dx, &[2, 3])?)
        .output(c"dbias", &mut ViewMut::dense(&mut dbias, &[3])?)
        .real(c"eps", EPS)
        .integer(c"normalized_ndim", 1)
        .run()?;
    assert_eq!(dbias, [bf16::from_f32(2.0); 3]);
    assert!(dx.iter().all(|dx| dx.to_f32().abs() < 1e-6), "a constant gradient has no part along x");
    Ok(())
}

#[test]
fn what_does_not_fit_is_refused() {
    let Problem { x, weight, bias, mut y, .. } = problem();
    let short = layer_norm(&x, &weight, &bias[1..], EPS, &mut y);
    assert!(short.is_err_and(|e| e.to_string().contains("36 elements")));
    assert!(rms_norm(&x[1..], &weight, EPS, &mut y).is_err(), "not a whole number of rows");
    assert!(rms_norm(&x, &weight, -1.0, &mut y).is_err(), "eps is negative");
    assert!(y.iter().all(|&y| y == 0.0), "a refusal writes nothing");
    // The last element of the last row would lie behind the end.
    assert!(View::strided(&x[..3 * D - 1], &[3, D], &[D, 1]).is_err());
    assert!(View::strided(&x, &[3, D], &[D]).is_err(), "an axis without a stride");
    assert!(View::strided(&x, &[usize::MAX, 2], &[usize::MAX, 1]).is_err(), "the reach overflows");
    assert!(ViewMut::dense(&mut y, &[2, D]).is_err());
    let overlapping = ViewMut::strided(&mut y, &[3, D], &[1, 1]).and_then(|mut y| {
        let x = View::dense(&x, &[3, D])?;
        Operation::new(c"l2_normalize", Direction::Forward).input(c"x", &x).output(c"y", &mut y).real(c"eps", EPS).run()
    });
    assert!(overlapping.is_err_and(|e| e.to_string().contains("overlap")));
    let unknown = Operation::new(c"no_norm", Direction::Forward).run();
    assert!(unknown.is_err_and(|e| e.to_string().contains("no_norm")));
}

/// A parameter that must be gathered, of no elements: its steps were once of size zero.
#[test]
fn views_of_nothing_are_taken() -> Result<(), Refusal> {
    let nothing: [f32; 0] = [];
    let gapped = View::strided(&nothing, &[2, 0], &[3, 1])?;
    Operation::new(c"layer_norm", Direction::Forward)
        .input(c"x", &View::dense(&nothing, &[3, 2, 0])?)
        .input(c"weight", &gapped)
        .input(c"bias", &gapped)
        .output(c"y", &mut ViewMut::dense(&mut [0.0f32; 0], &[3, 2, 0])?)
        .real(c"eps", EPS)
        .integer(c"normalized_ndim", 2)
        .run()
}
