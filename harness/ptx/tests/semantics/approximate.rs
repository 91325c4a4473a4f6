//! The approximate instructions: correctly rounded, and within the documented error when perturbed.

use super::{
    evaluate,
    exact::{BF16, F16, F32, Format},
    halves, mixed, on_gpu,
};
use isonorm_ptx::Accuracy;

/// The f64 function and the documented error: relative, or absolute where it is negative.
type Case = (&'static str, fn(f64) -> f64, Format, fn(f64) -> f64);

const CASES: [Case; 11] = [
    ("rcp.approx.f32", |x| 1.0 / x, F32, |_| 2f64.powi(-23)),
    ("sqrt.approx.f32", f64::sqrt, F32, |_| 2f64.powi(-23)),
    ("rsqrt.approx.f32", |x| 1.0 / x.sqrt(), F32, |_| 2f64.powf(-22.9)),
    ("ex2.approx.f32", f64::exp2, F32, |_| 2f64.powi(-22)),
    ("lg2.approx.f32", f64::log2, F32, |x| if x > 0.5 && x < 2.0 { -(2f64.powi(-22)) } else { 2f64.powi(-22) }),
    ("sin.approx.f32", f64::sin, F32, |_| -(2f64.powf(-20.5))),
    ("cos.approx.f32", f64::cos, F32, |_| -(2f64.powf(-20.5))),
    ("tanh.approx.f32", f64::tanh, F32, |_| 2f64.powi(-11)),
    ("ex2.approx.f16", f64::exp2, F16, |_| 2f64.powf(-9.9)),
    ("ex2.approx.ftz.bf16", f64::exp2, BF16, |_| 2f64.powi(-7)),
    ("tanh.approx.bf16", f64::tanh, BF16, |_| -(2f64.powi(-8))),
];

#[test]
fn approximate_instructions_keep_their_documented_error() {
    for (name, function, f, documented) in CASES {
        let rows = if f == F32 { mixed(1, 32, &f.special(), 60_000) } else { halves() };
        // Where results and arguments are normal numbers.
        let rows: Vec<Vec<u64>> =
            rows.into_iter().filter(|r| !f.is_nan(r[0]) && !f.is_infinite(r[0]) && f.flush(r[0]) == r[0]).collect();
        let code = format!("{name} $d, $a;");
        let widths = [f.bits, f.bits];
        let exact = evaluate(&code, &widths, &rows, Accuracy::Exact);
        let moved = evaluate(&code, &widths, &rows, Accuracy::Perturbed(7));
        let again = evaluate(&code, &widths, &rows, Accuracy::Perturbed(7));
        assert_eq!(moved, again, "{name}: the same seed gives the same");
        // What is documented of these holds for small angles only.
        let angle = name.starts_with("sin") || name.starts_with("cos");
        let on_gpu = on_gpu(&code, &widths, &rows);
        let half_unit = 2f64.powi(-(f.fraction as i32) - 1);
        let (mut normal, mut different) = (0, 0);
        for (place, ((row, exact), moved)) in rows.iter().zip(exact).zip(moved).enumerate() {
            let x = f.value(row[0]);
            let want = function(x);
            if want.is_nan() {
                assert!(f.is_nan(exact) && f.is_nan(moved), "{name} of {x}");
                continue;
            }
            if !want.is_finite() || want.abs() > f.value(f.infinity() - 1) {
                assert!(f.is_infinite(exact), "{name} of {x}");
                continue;
            }
            let (g, m) = (f.value(exact), f.value(moved));
            if want.abs() < f.value(1 << f.fraction) {
                continue;
            }
            normal += 1;
            assert!((g - want).abs() <= want.abs() * half_unit * 1.000_001, "{name} of {x}: {g} for {want}");
            let limit = match documented(x) {
                e if e < 0.0 => (-e).max(want.abs() * half_unit),
                e => e * want.abs(),
            };
            assert!((m - want).abs() <= limit * 1.000_001, "{name} of {x}: perturbed to {m} for {want}");
            if let Some(all) = on_gpu.as_ref().filter(|_| !angle || x.abs() <= std::f64::consts::TAU) {
                let h = f.value(all[place]);
                assert!((h - want).abs() <= limit * 1.000_001, "{name} of {x}: the GPU gives {h} for {want}");
            }
            different += usize::from(exact != moved);
        }
        assert!(different * 10 > normal, "{name}: {different} of {normal} were moved");
    }
}

#[test]
fn division_within_two_units() {
    let rows = mixed(2, 32, &[0x3f80_0000, 0x4040_0000, 0xc000_0000], 30_000);
    for code in ["div.approx.f32 $d, $a, $b;", "div.full.f32 $d, $a, $b;"] {
        for accuracy in [Accuracy::Exact, Accuracy::Perturbed(1)] {
            for (row, got) in rows.iter().zip(evaluate(code, &[32; 3], &rows, accuracy)) {
                let (a, b) = (f32::from_bits(row[0] as u32), f32::from_bits(row[1] as u32));
                let want = f64::from(a) / f64::from(b);
                if want.is_finite() && want.abs() < 3e38 && want.abs() > 1.2e-38 {
                    let got = f64::from(f32::from_bits(got as u32));
                    assert!((got - want).abs() <= want.abs() * 2f64.powi(-22), "{a} / {b}");
                }
            }
        }
    }
}
