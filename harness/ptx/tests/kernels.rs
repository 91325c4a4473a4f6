//! The project's CUDA kernels, as NVRTC compiled them, against f64.

mod common;

use common::{Dtype, FORWARD, Tensors, clean, error, module, normal, run, text};
use isonorm_ptx::{Argument, Launch};

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
            assert!(ran.errors[..2].iter().all(|e| *e <= allowed), "{} {:?}", kernel.file, ran.errors);
            assert!(ran.errors[2..].iter().all(|e| *e <= 4e-7), "{} {:?}", kernel.file, ran.errors);
        }
    }
}

#[test]
fn backward_kernels_are_right_and_clean() {
    for (file, t, w, d, warps, rms) in [
        ("layer_norm_backward_bf16_1000", Dtype::Bf16, Dtype::F32, 1000, 4, false),
        ("rms_norm_backward_f32_300", Dtype::F32, Dtype::F32, 300, 1, true),
    ] {
        let (rows, grid) = (7usize, 3u32);
        let n = rows * d;
        let (x, dy, gamma) = (t.round(&normal(n, 1)), t.round(&normal(n, 2)), w.round(&normal(d, 3)));
        let (mut means, mut rstds) = (Vec::new(), Vec::new());
        for row in x.chunks(d) {
            let m = if rms { 0.0 } else { row.iter().sum::<f64>() / d as f64 };
            means.push(m);
            rstds.push(1.0 / (row.iter().map(|v| (v - m).powi(2)).sum::<f64>() / d as f64 + 1e-5).sqrt());
        }
        let (means, rstds) = (Dtype::F32.round(&means), Dtype::F32.round(&rstds));
        let mut tensors = Tensors::default();
        let inputs = [tensors.input("dy", t, &dy), tensors.input("x", t, &x), tensors.input("gamma", w, &gamma)];
        let stats = [tensors.input("mean", Dtype::F32, &means), tensors.input("rstd", Dtype::F32, &rstds)];
        let dx = tensors.output("dx", t, n);
        let dgamma = tensors.output("dgamma_parts", Dtype::F32, grid as usize * d);
        let dbeta = tensors.output("dbeta_parts", Dtype::F32, if rms { 0 } else { grid as usize * d });
        let mut params: Vec<Argument> =
            inputs.into_iter().chain(stats).chain([dx, dgamma, dbeta]).map(|b| tensors.pointer(b)).collect();
        params.push((rows as i32).into());
        let launch = Launch {
            grid: [grid, 1, 1],
            block: [warps * 32, 1, 1],
            shared: if warps > 1 { 4 * (warps + 1) } else { 0 },
            params,
            ..Launch::default()
        };
        clean(&run(&module(&text(file)), launch, &mut tensors));

        let (mut want, mut want_gamma, mut want_beta) = (Vec::new(), vec![0.0; d], vec![0.0; d]);
        for row in 0..rows {
            let at = |v: &[f64], i: usize| v[row * d + i];
            let h: Vec<f64> = (0..d).map(|i| (at(&x, i) - means[row]) * rstds[row]).collect();
            let g: Vec<f64> = (0..d).map(|i| at(&dy, i) * gamma[i]).collect();
            let mean_g = if rms { 0.0 } else { g.iter().sum::<f64>() / d as f64 };
            let mean_gh = g.iter().zip(&h).map(|(g, h)| g * h).sum::<f64>() / d as f64;
            for i in 0..d {
                want.push(rstds[row] * (g[i] - mean_g - h[i] * mean_gh));
                want_gamma[i] += at(&dy, i) * h[i];
                want_beta[i] += at(&dy, i);
            }
        }
        let dx_error = error(&tensors.values(dx, t), &want);
        assert!(dx_error <= t.unit() + 1e-6, "{file}: dx {dx_error}");
        let sums = |parts: &[f64]| (0..d).map(|i| parts.iter().skip(i).step_by(d).sum()).collect::<Vec<f64>>();
        let parts = tensors.values(dgamma, Dtype::F32);
        assert!(error(&sums(&parts), &want_gamma) <= 1e-6, "{file}: dgamma");
        if !rms {
            assert!(error(&sums(&tensors.values(dbeta, Dtype::F32)), &want_beta) <= 1e-6, "{file}: dbeta");
        }
    }
}

#[test]
fn the_second_stage_adds_in_a_fixed_order() {
    let (d, parts) = (1000usize, 37usize);
    let values = Dtype::F32.round(&normal(d * parts, 1));
    let mut tensors = Tensors::default();
    let (input, out) = (tensors.input("in", Dtype::F32, &values), tensors.output("out", Dtype::F32, d));
    let params = vec![tensors.pointer(input), tensors.pointer(out), (parts as i32).into()];
    let launch = Launch { grid: [d.div_ceil(32) as u32, 1, 1], block: [32, 8, 1], params, ..Launch::default() };
    let outcome = run(&module(&text("reduce_parts_f32_1000")), launch, &mut tensors);
    clean(&outcome);
    // The kernel's order, in f32: eight strided sums, then those in turn. To the bit.
    let at = |r: usize, c: usize| values[r * d + c] as f32;
    let want: Vec<f64> = (0..d)
        .map(|c| {
            let strided = |s: usize| (s..parts).step_by(8).fold(0f32, |sum, r| sum + at(r, c));
            f64::from((1..8).fold(strided(0), |sum, s| sum + strided(s)))
        })
        .collect();
    assert_eq!(tensors.values(out, Dtype::F32), want);
}
