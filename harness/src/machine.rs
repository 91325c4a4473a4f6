//! What this machine is.

use std::fs;

use isonorm_cuda::driver::Gpu;
use isonorm_reports::record::{self, Machine};

/// Logical cores.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The machine as records name it.
pub fn describe() -> Machine {
    let field = |file: &str, key: &str, separator: char| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key))?.split_once(separator)?.1;
        Some(line.trim().trim_matches('"').to_owned())
    };
    let system = field("/etc/os-release", "PRETTY_NAME", '=').unwrap_or_else(|| std::env::consts::OS.to_owned());
    Machine {
        cpu: field("/proc/cpuinfo", "model name", ':').unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        cores: cores() as u32,
        isa: instruction_sets(),
        os: format!("{system}, {}", std::env::consts::ARCH),
        gpu: None,
    }
}

/// A GPU as records name it.
pub fn gpu(gpu: &Gpu) -> record::Gpu {
    let Gpu { name, arch, sms, l2, cuda, .. } = gpu;
    record::Gpu { name: name.clone(), arch: arch.clone(), sms: *sms, l2: *l2, cuda: cuda.clone() }
}

#[cfg(target_arch = "x86_64")]
fn instruction_sets() -> Vec<String> {
    macro_rules! detected {
        ($($feature:tt),*) => {
            [$(($feature, std::arch::is_x86_feature_detected!($feature))),*]
        };
    }
    let found = detected![
        "avx",
        "f16c",
        "fma",
        "avx2",
        "avx512f",
        "avx512bw",
        "avx512dq",
        "avx512vl",
        "avx512bf16",
        "avx512fp16"
    ];
    found.into_iter().filter(|(_, has)| *has).map(|(name, _)| name.to_owned()).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn instruction_sets() -> Vec<String> {
    vec![std::env::consts::ARCH.to_owned()]
}
