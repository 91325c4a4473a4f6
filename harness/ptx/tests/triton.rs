//! Kernels that Triton compiled from tests/ptx/triton_norms.py, against f64.

mod common;

use common::{Dtype, Tensors, clean, error, kinds, module, normal, run, text};
use isonorm_ptx::{Accuracy, Argument, Kind, Launch, Outcome};

struct Case {
    file: &'static str,
    t: Dtype,
    w: Dtype,
    /// Shared bytes and warps, as the file's first line says.
    shared: u32,
    warps: u32,
    rms: bool,
}

const CASES: [Case; 3] = [
    Case { file: "triton_rms_norm_bf16", t: Dtype::Bf16, w: Dtype::F32, shared: 16, warps: 4, rms: true },
    Case { file: "triton_layer_norm_f32", t: Dtype::F32, w: Dtype::F32, shared: 0, warps: 1, rms: false },
    Case { file: "triton_layer_norm_f16", t: Dtype::F16, w: Dtype::F16, shared: 32, warps: 8, rms: false },
];

impl Case {
    fn run(&self, text: &str, rows: usize, n: usize, edit: impl FnOnce(&mut Launch)) -> (Outcome, f64) {
        let stride = n.next_multiple_of(16);
        let x = self.t.round(&normal(rows * stride, 1));
        let (gamma, beta) = (self.w.round(&normal(n, 2)), self.w.round(&normal(n, 3)));
        let mut t = Tensors::default();
        let xs = t.input("x", self.t, &x);
        let gs = t.input("gamma", self.w, &gamma);
        let bs = t.input("beta", self.w, &beta);
        // Rows of y are as far apart as those of x; what lies between is nobody's.
        let y = t.memory.add("y", &vec![0xff; self.t.bytes(&x).len()], isonorm_ptx::Rights::ReadWrite);
        let rstd = t.output("rstd", Dtype::F32, if self.rms { rows } else { 0 });
        let buffers = if self.rms { [xs, gs, y, rstd] } else { [xs, gs, bs, y] };
        let mut params: Vec<Argument> = buffers.map(|b| t.pointer(b)).into();
        // The two last parameters are scratch memory that these kernels do not use.
        params.extend([(stride as i32).into(), (n as i32).into(), 1e-5f32.into(), Argument::null(), Argument::null()]);
        let mut launch = Launch {
            grid: [rows as u32, 1, 1],
            block: [32 * self.warps, 1, 1],
            shared: self.shared,
            params,
            ..Launch::default()
        };
        edit(&mut launch);
        let outcome = run(&module(text), launch, &mut t);
        let got = t.values(y, self.t);
        let worst = (0..rows).map(|r| {
            let row = &x[r * stride..r * stride + n];
            let mean = if self.rms { 0.0 } else { row.iter().sum::<f64>() / n as f64 };
            let rstd =
                1.0 / (row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64 + f64::from(1e-5f32)).sqrt();
            let b = |i: usize| if self.rms { 0.0 } else { beta[i] };
            let want: Vec<f64> = (0..n).map(|i| (row[i] - mean) * rstd * gamma[i] + b(i)).collect();
            error(&got[r * stride..r * stride + n], &want)
        });
        (outcome, worst.fold(0.0, f64::max))
    }
}

#[test]
fn triton_kernels_are_right_and_clean() {
    for case in &CASES {
        for n in [16, 208, 256] {
            let (outcome, worst) = case.run(&text(case.file), 3, n, |_| {});
            clean(&outcome);
            assert!(worst <= case.t.unit() + 6e-7, "{} n = {n}: {worst}", case.file);
        }
    }
    // Any n.
    for n in [1, 1001, 4095] {
        let (outcome, worst) = CASES[2].run(&text(CASES[2].file), 2, n, |_| {});
        clean(&outcome);
        assert!(worst <= Dtype::F16.unit() + 6e-7, "n = {n}: {worst}");
    }
}

#[test]
fn approximate_instructions_at_their_worst_change_little() {
    for case in &CASES {
        let (outcome, worst) = case.run(&text(case.file), 2, 256, |l| l.options.accuracy = Accuracy::Perturbed(1));
        clean(&outcome);
        // Division and root: three units of f32 more.
        assert!(worst <= case.t.unit() + 1.2e-6, "{}: {worst}", case.file);
    }
}

#[test]
fn bugs_in_triton_kernels_are_found() {
    let text = text("triton_rms_norm_bf16");
    let case = &CASES[0];
    let (outcome, _) = case.run(&text.replacen("bar.sync \t0;", "", 1), 2, 256, |_| {});
    assert!(
        kinds(&outcome.findings).iter().any(|k| matches!(k, Kind::Race | Kind::UnwrittenRead)),
        "{:?}",
        outcome.findings
    );
    let (outcome, _) = case.run(&text, 2, 256, |l| l.shared = 8);
    assert!(kinds(&outcome.findings).contains(&Kind::OutOfBounds), "{:?}", outcome.findings);
}
