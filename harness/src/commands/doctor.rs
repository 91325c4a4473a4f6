//! `doctor`: what this machine has.

use std::process::Command;
use std::time::Instant;

use clap::Args;
use isonorm_cuda::compile::{Nvrtc, locate};
use serde::Serialize;

use super::{Answer, Error, Format, print_json, print_text};
use crate::bench::gpu::libtorch_on_gpu;
use crate::machine;

/// Show what this machine has: processor, instruction sets, libtorch, GPU, NVRTC, Python, compiler, bandwidth.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How the answer is printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    state: String,
}

pub(super) fn run(arguments: Arguments) -> Result<Answer, Error> {
    let machine = machine::describe();
    let found = |name: &'static str, state: String| Finding { name, state };
    let findings = vec![
        found("isonorm", env!("CARGO_PKG_VERSION").to_owned()),
        found("system", machine.os),
        found("processor", format!("{}, {} cores", machine.cpu, machine.cores)),
        found("instruction sets", machine.isa.join(", ")),
        found("libtorch", format!("{}, {} threads", isonorm_oracles::LIBTORCH_VERSION, tch::get_num_threads())),
        found("libtorch CUDA", if libtorch_on_gpu().is_ok() { "available" } else { "not available" }.to_owned()),
        found("GPU", says("nvidia-smi", &["--query-gpu=name,driver_version", "--format=csv,noheader"])),
        found("NVRTC", nvrtc()),
        found("Python", says("python3", &["--version"])),
        found("Triton", triton()),
        found("C compiler", says("cc", &["--version"])),
        found("copy bandwidth", format!("{:.1} GB/s read and written, one thread, 64 MiB", copy_bandwidth() / 1e9)),
    ];
    match arguments.format {
        Format::Json => print_json(&findings)?,
        Format::Text => {
            let lines = findings.iter().map(|Finding { name, state }| format!("{name:17} {state}\n"));
            print_text(&lines.collect::<String>())?;
        }
    }
    Ok(Answer::Well)
}

/// What would compile CUDA C++.
fn nvrtc() -> String {
    match locate() {
        Ok(Nvrtc { version, found, .. }) => format!("{version}, {found}"),
        Err(_) => "not found".to_owned(),
    }
}

/// What would compile Triton functions.
fn triton() -> String {
    match isonorm_cuda::compile::triton() {
        Ok(triton) => format!("{}, {}", triton.version, triton.python),
        Err(_) => "not found".to_owned(),
    }
}

/// The first line that a program prints.
fn says(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.ok().filter(|output| output.status.success()).map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().next().map_or_else(|| "not found".to_owned(), |line| line.trim().to_owned())
}

/// Bytes per second, read plus written, of the best of a few copies. For orientation only: one number, not paired.
fn copy_bandwidth() -> f64 {
    const BYTES: usize = 64 << 20;
    let (from, mut to) = (vec![1u8; BYTES], vec![0u8; BYTES]);
    let best = (0..5).map(|_| {
        let start = Instant::now();
        to.copy_from_slice(std::hint::black_box(&from));
        std::hint::black_box(&mut to);
        start.elapsed().as_secs_f64()
    });
    2.0 * BYTES as f64 / best.fold(f64::INFINITY, f64::min)
}
