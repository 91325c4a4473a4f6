//! What the tests share: committed PTX, element types, memory, references in f64.
#![allow(dead_code, missing_docs, reason = "each test file uses a part")]

use half::{bf16, f16};
use isonorm_ptx::{Argument, Buffer, Finding, Kind, Launch, Memory, Module, Outcome, Rights};

/// The text of a committed PTX file.
pub fn text(name: &str) -> String {
    let path = format!("{}/tests/ptx/{name}.ptx", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

pub fn module(text: &str) -> Module {
    Module::parse(text).unwrap_or_else(|e| panic!("{e}"))
}

/// An element type of tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Dtype {
    F32,
    F16,
    Bf16,
}

impl Dtype {
    pub fn bytes(self, values: &[f64]) -> Vec<u8> {
        let each = |v: &f64| match self {
            Self::F32 => (*v as f32).to_le_bytes().to_vec(),
            Self::F16 => f16::from_f64(*v).to_le_bytes().to_vec(),
            Self::Bf16 => bf16::from_f64(*v).to_le_bytes().to_vec(),
        };
        values.iter().flat_map(each).collect()
    }

    pub fn values(self, bytes: &[u8]) -> Vec<f64> {
        match self {
            Self::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).into()).collect(),
            Self::F16 => bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f64()).collect(),
            Self::Bf16 => bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f64()).collect(),
        }
    }

    pub fn round(self, values: &[f64]) -> Vec<f64> {
        self.values(&self.bytes(values))
    }

    /// Half a unit in the last place of numbers from 1 to 2.
    pub fn unit(self) -> f64 {
        match self {
            Self::F32 => 2f64.powi(-24),
            Self::F16 => 2f64.powi(-11),
            Self::Bf16 => 2f64.powi(-8),
        }
    }
}

/// Numbers that look normally distributed, the same for the same seed.
pub fn normal(n: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..n).map(|_| (0..12).map(|_| uniform()).sum::<f64>() - 6.0).collect()
}

/// Buffers of typed values.
#[derive(Default)]
pub struct Tensors {
    pub memory: Memory,
}

impl Tensors {
    pub fn input(&mut self, name: &str, dtype: Dtype, values: &[f64]) -> Buffer {
        self.memory.add(name, &dtype.bytes(values), Rights::Read)
    }

    /// An output full of a NaN pattern.
    pub fn output(&mut self, name: &str, dtype: Dtype, elements: usize) -> Buffer {
        let bytes = vec![0xff; dtype.bytes(&[0.0]).len() * elements];
        self.memory.add(name, &bytes, Rights::Write)
    }

    pub fn pointer(&self, buffer: Buffer) -> Argument {
        Argument::pointer(&self.memory, buffer)
    }

    pub fn values(&self, buffer: Buffer, dtype: Dtype) -> Vec<f64> {
        dtype.values(&self.memory.bytes(buffer))
    }
}

/// Runs the module's only kernel.
pub fn run(module: &Module, mut launch: Launch, tensors: &mut Tensors) -> Outcome {
    if launch.kernel.is_empty() {
        launch.kernel = module.kernels().next().unwrap_or_default().into();
    }
    module.run(&launch, &mut tensors.memory).unwrap_or_else(|e| panic!("{e}"))
}

/// The greatest |got - want| / (1 + |want|); infinite where one is no number.
pub fn error(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).map(|(g, w)| (g - w).abs() / (1.0 + w.abs())).fold(0.0, |m, e| {
        if e <= m {
            m
        } else if e.is_nan() {
            f64::INFINITY
        } else {
            e
        }
    })
}

pub fn kinds(findings: &[Finding]) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = findings.iter().map(|f| f.kind).collect();
    kinds.dedup();
    kinds
}

pub fn clean(outcome: &Outcome) {
    let lines: Vec<String> = outcome.findings.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{}", lines.join("\n"));
}

/// A forward kernel of kernels/cuda/rows.cu: the committed file, template arguments, and a row's length to run it with.
#[derive(Clone, Copy, Debug)]
pub struct Forward {
    pub file: &'static str,
    pub t: Dtype,
    pub w: Dtype,
    pub d: usize,
    /// Of a row.
    pub threads: u32,
    pub cluster: u32,
    pub rms: bool,
    pub residual: bool,
}

const EPS: f64 = 1e-5;

/// What a forward kernel is given and has returned.
pub struct Ran {
    pub outcome: Outcome,
    /// Errors of y and residual_out.
    pub errors: [f64; 2],
    /// All their bytes.
    pub bytes: Vec<u8>,
}

impl Forward {
    pub fn run(&self, module: &Module, rows: usize, edit: impl FnOnce(&mut Launch)) -> Ran {
        let (d, n) = (self.d, self.d * rows);
        let x = self.t.round(&normal(n, 1));
        let r = self.t.round(&normal(n, 2));
        let weight = self.w.round(&normal(d, 3));
        let bias = self.w.round(&normal(d, 4));
        let mut t = Tensors::default();
        let xs = t.input("x", self.t, &x);
        let rs = t.input("residual", self.t, &r);
        let (ws, bs) = (t.input("weight", self.w, &weight), t.input("bias", self.w, &bias));
        let y = t.output("y", self.t, n);
        let sum = t.output("residual_out", self.t, if self.residual { n } else { 0 });
        let mut params: Vec<Argument> = [xs, rs, ws, bs, y, sum].map(|b| t.pointer(b)).into();
        params.extend([(rows as i64).into(), (d as i32).into(), 0i32.into(), (EPS as f32).into()]);
        let rows_of_block = if self.threads <= 32 { 128 / self.threads } else { 1 };
        let mut launch = Launch {
            grid: [(rows as u32).div_ceil(rows_of_block) * self.cluster, 1, 1],
            block: [self.threads * rows_of_block, 1, 1],
            cluster: [self.cluster, 1, 1],
            params,
            ..Launch::default()
        };
        edit(&mut launch);
        let outcome = run(module, launch, &mut t);

        let s: Vec<f64> = if self.residual { x.iter().zip(&r).map(|(a, b)| a + b).collect() } else { x };
        let s = self.t.round(&s);
        let mut want = Vec::new();
        for row in s.chunks(d) {
            let m = if self.rms { 0.0 } else { row.iter().sum::<f64>() / d as f64 };
            let v = row.iter().map(|v| (v - m).powi(2)).sum::<f64>() / d as f64;
            let q = 1.0 / (v + EPS as f32 as f64).sqrt();
            want.extend(
                row.iter().enumerate().map(|(i, v)| (v - m) * q * weight[i] + if self.rms { 0.0 } else { bias[i] }),
            );
        }
        let errors =
            [error(&t.values(y, self.t), &want), if self.residual { error(&t.values(sum, self.t), &s) } else { 0.0 }];
        let bytes = [y, sum].iter().flat_map(|b| t.memory.bytes(*b)).collect();
        Ran { outcome, errors, bytes }
    }
}

pub const fn forward(file: &'static str, t: Dtype, w: Dtype, d: usize) -> Forward {
    Forward { file, t, w, d, threads: 128, cluster: 1, rms: false, residual: false }
}

/// The committed forward kernels.
pub const FORWARD: [Forward; 6] = [
    Forward { threads: 32, ..forward("layer_norm_f32_warp", Dtype::F32, Dtype::F32, 1000) },
    Forward { threads: 32, residual: true, ..forward("layer_norm_f16_narrow", Dtype::F16, Dtype::F32, 201) },
    forward("layer_norm_bf16_block", Dtype::Bf16, Dtype::Bf16, 4096),
    Forward {
        threads: 32,
        rms: true,
        residual: true,
        ..forward("rms_norm_bf16_residual", Dtype::Bf16, Dtype::F32, 1000)
    },
    Forward { rms: true, ..forward("rms_norm_f16_sm80", Dtype::F16, Dtype::F16, 4096) },
    Forward { threads: 512, cluster: 2, rms: true, ..forward("rms_norm_f32_cluster", Dtype::F32, Dtype::F32, 16_500) },
];

/// The small forward kernel that bugs are planted in: rows of 200 f32, a row to two warps.
pub const SMALL: Forward = Forward { threads: 64, ..forward("", Dtype::F32, Dtype::F32, 200) };

/// The parameters of a backward kernel without a residual: dy, x, weight, dx and the parts of dweight and dbias are given.
pub fn backward_params(t: &Tensors, buffers: [Buffer; 6], wants: i32, rows: usize, d: usize) -> Vec<Argument> {
    let [dy, x, weight, dx, dweight, dbias] = buffers.map(|b| t.pointer(b));
    let null = Argument::null;
    let sizes = [(rows as i64).into(), (d as i32).into(), 0i32.into(), (EPS as f32).into()];
    [dy, null(), x, null(), weight, dx, null(), dweight, dbias, wants.into()].into_iter().chain(sizes).collect()
}

/// A launch of the second stage of dweight.
pub fn reduce_launch(t: &Tensors, input: Buffer, out: Buffer, parts: usize, d: usize) -> Launch {
    let null = Argument::null;
    let params = vec![t.pointer(input), null(), t.pointer(out), null(), (parts as i32).into(), (d as i32).into()];
    Launch { grid: [d.div_ceil(32) as u32, 1, 1], block: [32, 16, 1], params, ..Launch::default() }
}
