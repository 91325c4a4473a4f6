//! libtorch, which `.cargo/config.toml` and the programs' run path expect at `target/libtorch`: what PyTorch computes with.

use std::env::consts::DLL_SUFFIX;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{At, Error};
use crate::machine::Machine;
use crate::part::{Fault, Part, ask_pythons, require_file};
use crate::wheels::{PLATFORMS_AARCH64, PLATFORMS_X86_64, RUNTIME_AARCH64, RUNTIME_X86_64, Wheel, Wheels};

/// The one version that the `tch` in `Cargo.toml` binds.
pub const VERSION: &str = "2.11.0";

pub const LIBTORCH: Part = Part {
    name: "libtorch",
    version: VERSION,
    unpacked: "libtorch-2.11.0-cpu",
    variable: "LIBTORCH",
    check,
    // torch-sys is compiled in a moment.
    require: Machine::require_compiler,
    elsewhere: python_torch,
    wheels: for_platform,
    finish,
};

fn for_platform(platform: &str) -> Option<&'static Wheels> {
    match platform {
        "linux-x86_64-gnu" => Some(&X86_64),
        "linux-aarch64-gnu" => Some(&AARCH64),
        _ => None,
    }
}

// The registry's wheels are CUDA builds. Without libtorch_cuda.so beside it libtorch_cpu.so works alone, but for the
// two CUDA libraries that it names as dependencies.
static X86_64: Wheels = Wheels {
    platforms: &PLATFORMS_X86_64,
    wheels: &[
        Wheel {
            requirement: "torch==2.11.0",
            sha256: "7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a",
            folder: "torch/",
            members: &["include/", "lib/libc10.so", "lib/libtorch_cpu.so", "lib/libgomp.so.1"],
        },
        Wheel { members: &["lib/libcudart.so.13"], ..RUNTIME_X86_64 },
        Wheel {
            requirement: "nvidia-cuda-cupti==13.0.85",
            sha256: "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
            folder: "nvidia/cu13/",
            members: &["lib/libcupti.so.13"],
        },
    ],
    bytes: 1_600_000_000,
};

static AARCH64: Wheels = Wheels {
    platforms: &PLATFORMS_AARCH64,
    wheels: &[
        Wheel {
            requirement: "torch==2.11.0",
            sha256: "d91aac77f24082809d2c5a93f52a5f085032740a1ebc9252a7b052ef5a4fddc6",
            folder: "torch/",
            members: &[
                "include/",
                "lib/libc10.so",
                "lib/libtorch_cpu.so",
                "lib/libgomp.so.1",
                "lib/libarm_compute.so",
                "lib/libarm_compute_graph.so",
                "lib/libnvpl_blas_core.so.0",
                "lib/libnvpl_blas_lp64_gomp.so.0",
                "lib/libnvpl_lapack_core.so.0",
                "lib/libnvpl_lapack_lp64_gomp.so.0",
            ],
        },
        Wheel { members: &["lib/libcudart.so.13"], ..RUNTIME_AARCH64 },
        Wheel {
            requirement: "nvidia-cuda-cupti==13.0.85",
            sha256: "796bd679890ee55fb14a94629b698b6db54bcfd833d391d5e94017dd9d7d3151",
            folder: "nvidia/cu13/",
            members: &["lib/libcupti.so.13"],
        },
    ],
    bytes: 1_400_000_000,
};

/// The wheel's own libtorch.so is a stub that asks for the CUDA part too; torch-sys wants to read the version.
fn finish(libtorch: &Path) -> Result<(), Error> {
    for (name, text) in [("lib/libtorch.so", "INPUT(libtorch_cpu.so)\n"), ("build-version", VERSION)] {
        let path = libtorch.join(name);
        fs::write(&path, text).at("write", path)?;
    }
    Ok(())
}

fn check(libtorch: &Path) -> Result<(), Fault> {
    for library in ["c10", "torch_cpu", "torch"] {
        require_file(libtorch, &format!("lib/lib{library}{DLL_SUFFIX}"))?;
    }
    require_file(libtorch, "include/torch/csrc/api/include/torch/torch.h")?;
    match version(libtorch) {
        Some(found) if found != VERSION => Err(Fault::Version { found, needed: VERSION }),
        _ => Ok(()),
    }
}

/// The version a folder states, as libtorch's own downloads or as PyTorch's Python package do, without a suffix such as
/// `+cpu`. A folder that states none is taken at its word.
fn version(libtorch: &Path) -> Option<String> {
    let number = |text: &str| text.trim().split('+').next().map(str::to_owned);
    if let Ok(text) = fs::read_to_string(libtorch.join("build-version")) {
        return number(&text);
    }
    let text = fs::read_to_string(libtorch.join("version.py")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("__version__ = "))?;
    number(line.trim_matches(['\'', '"']))
}

/// The PyTorch of the active Python, if it is one to build against. Importing it proves that its libraries load.
fn python_torch(machine: &Machine) -> Vec<PathBuf> {
    const QUESTION: &str = "import torch, os; \
        print('isonorm', int(torch._C._GLIBCXX_USE_CXX11_ABI), os.path.dirname(torch.__file__))";
    let answers = ask_pythons(machine, QUESTION);
    answers.iter().filter_map(|answer| answer.strip_prefix("1 ")).map(PathBuf::from).collect()
}
