//! The project's CUDA kernels, as NVRTC compiled them, against f64.

mod common;

use common::{Dtype, FORWARD, Tensors, backward_params, clean, error, module, normal, reduce_launch, run, text};
use isonorm_ptx::Launch;

#[test]
fn forward_kernels_are_right_and_clean() {
    for kernel in FORWARD {
        let module = module(&text(kernel.file));
        for rows in [1, 5] {
            let ran = kernel.run(&module, rows, |_| {});
            clean(&ran.outcome);
            // One rounding to the element type, and a few of f32 before it.
            let allowed = kernel.t.unit() + 4e-7;
            println!("{} {:?}", kernel.file, ran.errors);
            assert!(ran.errors.iter().all(|e| *e <= allowed), "{} {:?}", kernel.file, ran.errors);
        }
    }
}

#[test]
fn backward_kernels_are_right_and_clean() {
    // A block takes one row at a time, or has a warp for each of four: the fewer blocks take two rows each.
    for (file, t, w, d, parts, rms) in [
        ("layer_norm_backward_bf16", Dtype::Bf16, Dtype::F32, 1000, 3, false),
        ("rms_norm_backward_f32", Dtype::F32, Dtype::F32, 300, 4, true),
    ] {
        let (rows, grid) = (7usize, if rms { 1u32 } else { 3 });
        let n = rows * d;
        let (x, dy, weight) = (t.round(&normal(n, 1)), t.round(&normal(n, 2)), w.round(&normal(d, 3)));
        let (mut means, mut rstds) = (Vec::new(), Vec::new());
        for row in x.chunks(d) {
            let m = if rms { 0.0 } else { row.iter().sum::<f64>() / d as f64 };
            means.push(m);
            rstds.push(1.0 / (row.iter().map(|v| (v - m).powi(2)).sum::<f64>() / d as f64 + 1e-5).sqrt());
        }
        let mut tensors = Tensors::default();
        let dys = tensors.input("dy", t, &dy);
        let (xs, weights) = (tensors.input("x", t, &x), tensors.input("weight", w, &weight));
        let dx = tensors.output("dx", t, n);
        let dweight = tensors.output("weight_parts", Dtype::F32, parts * d);
        let dbias = tensors.output("bias_parts", Dtype::F32, if rms { 0 } else { parts * d });
        let params =
            backward_params(&tensors, [dys, xs, weights, dx, dweight, dbias], if rms { 1 } else { 3 }, rows, d);
        let launch = Launch { grid: [grid, 1, 1], block: [128, 1, 1], params, ..Launch::default() };
        clean(&run(&module(&text(file)), launch, &mut tensors));

        let (mut want, mut want_weight, mut want_bias) = (Vec::new(), vec![0.0; d], vec![0.0; d]);
        for row in 0..rows {
            let at = |v: &[f64], i: usize| v[row * d + i];
            let h: Vec<f64> = (0..d).map(|i| (at(&x, i) - means[row]) * rstds[row]).collect();
            let g: Vec<f64> = (0..d).map(|i| at(&dy, i) * weight[i]).collect();
            let mean_g = if rms { 0.0 } else { g.iter().sum::<f64>() / d as f64 };
            let mean_gh = g.iter().zip(&h).map(|(g, h)| g * h).sum::<f64>() / d as f64;
            for i in 0..d {
                want.push(rstds[row] * (g[i] - mean_g - h[i] * mean_gh));
                want_weight[i] += at(&dy, i) * h[i];
                want_bias[i] += at(&dy, i);
            }
        }
        let dx_error = error(&tensors.values(dx, t), &want);
        assert!(dx_error <= t.unit() + 1e-6, "{file}: dx {dx_error}");
        let sums = |parts: &[f64]| (0..d).map(|i| parts.iter().skip(i).step_by(d).sum()).collect::<Vec<f64>>();
        let parts = tensors.values(dweight, Dtype::F32);
        assert!(error(&sums(&parts), &want_weight) <= 1e-6, "{file}: dweight");
        if !rms {
            assert!(error(&sums(&tensors.values(dbias, Dtype::F32)), &want_bias) <= 1e-6, "{file}: dbias");
        }
    }
}

#[test]
fn the_second_stage_adds_in_a_fixed_order() {
    let (d, parts) = (1000usize, 37usize);
    let values = Dtype::F32.round(&normal(d * parts, 1));
    let mut tensors = Tensors::default();
    let (input, out) = (tensors.input("in", Dtype::F32, &values), tensors.output("out", Dtype::F32, d));
    let launch = reduce_launch(&tensors, input, out, parts, d);
    let outcome = run(&module(&text("reduce_parts_f32")), launch, &mut tensors);
    clean(&outcome);
    // The kernel's order, in f32: sixteen strided sums, then those in turn. To the bit.
    let at = |r: usize, c: usize| values[r * d + c] as f32;
    let want: Vec<f64> = (0..d)
        .map(|c| {
            let strided = |s: usize| (s..parts).step_by(16).fold(0f32, |sum, r| sum + at(r, c));
            f64::from((1..16).fold(strided(0), |sum, s| sum + strided(s)))
        })
        .collect();
    assert_eq!(tensors.values(out, Dtype::F32), want);
}
