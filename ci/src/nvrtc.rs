//! NVRTC, which compiles CUDA C++ to PTX without a GPU: the library, and the headers that kernels include.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::machine::Machine;
use crate::part::{Fault, Part, ask_pythons, require_file};
use crate::wheels::{PLATFORMS_AARCH64, PLATFORMS_X86_64, RUNTIME_AARCH64, RUNTIME_X86_64, Wheel, Wheels};

pub const NVRTC: Part = Part {
    name: "nvrtc",
    version: "13.0.88",
    unpacked: "nvrtc-13.0.88",
    variable: "ISONORM_NVRTC",
    check,
    require: |_| Ok(()),
    elsewhere,
    wheels: for_platform,
    finish: |_| Ok(()),
};

fn for_platform(platform: &str) -> Option<&'static Wheels> {
    match platform {
        "linux-x86_64-gnu" => Some(&X86_64),
        "linux-aarch64-gnu" => Some(&AARCH64),
        _ => None,
    }
}

/// Whether a command line will compile CUDA C++: kernels on a device that are built in or a user's `.cu`. Triton and PTX need
/// no NVRTC.
pub fn is_needed(arguments: &[OsString]) -> bool {
    let words: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
    let value = |option: &str| {
        let at = words
            .iter()
            .position(|word| word.strip_prefix(option).is_some_and(|rest| rest.is_empty() || rest.starts_with('=')))?;
        words[at].split_once('=').map(|(_, value)| value).or_else(|| words.get(at + 1).map(|word| &**word))
    };
    match words.first().map(|word| &**word) {
        Some("test") => true,
        Some("certify" | "replay" | "bench" | "gate") => {
            match (value("--cuda"), value("--triton"), value("--device")) {
                (Some(file), _, _) => !file.ends_with(".ptx"),
                (None, Some(_), _) => false,
                (None, None, device) => matches!(device, Some("ptx" | "cuda")),
            }
        }
        _ => false,
    }
}

const LIBRARIES: &[&str] = &["lib/libnvrtc.so.13", "lib/libnvrtc-builtins.so.13.0"];
const HEADERS: &[&str] = &["include/"];

static X86_64: Wheels = Wheels {
    platforms: &PLATFORMS_X86_64,
    wheels: &[
        Wheel {
            requirement: "nvidia-cuda-nvrtc==13.0.88",
            sha256: "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
            folder: "nvidia/cu13/",
            members: LIBRARIES,
        },
        Wheel { members: HEADERS, ..RUNTIME_X86_64 },
        Wheel {
            requirement: "nvidia-cuda-cccl==13.0.85",
            sha256: "e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649",
            folder: "nvidia/cu13/",
            members: HEADERS,
        },
    ],
    bytes: 260_000_000,
};

static AARCH64: Wheels = Wheels {
    platforms: &PLATFORMS_AARCH64,
    wheels: &[
        Wheel {
            requirement: "nvidia-cuda-nvrtc==13.0.88",
            sha256: "d27f20a0ca67a4bb34268a5e951033496c5b74870b868bacd046b1b8e0c3267b",
            folder: "nvidia/cu13/",
            members: LIBRARIES,
        },
        Wheel { members: HEADERS, ..RUNTIME_AARCH64 },
        Wheel {
            requirement: "nvidia-cuda-cccl==13.0.85",
            sha256: "6f0203e29fed809ee2b7fe9b1344df66ecab990c37d6a2e0e189b26d6c97ed7c",
            folder: "nvidia/cu13/",
            members: HEADERS,
        },
    ],
    bytes: 260_000_000,
};

/// Any NVRTC 13 will do, with the headers for half types.
fn check(nvrtc: &Path) -> Result<(), Fault> {
    for name in ["lib/libnvrtc.so.13", "include/cuda_fp16.h", "include/cuda_bf16.h"] {
        require_file(nvrtc, name)?;
    }
    let builtins = "libnvrtc-builtins.so.13.";
    let mut libraries = fs::read_dir(nvrtc.join("lib")).into_iter().flatten().flatten();
    if libraries.any(|entry| entry.file_name().to_string_lossy().starts_with(builtins)) {
        return Ok(());
    }
    Err(Fault::Missing(format!("lib/{builtins}x")))
}

/// A CUDA toolkit's folders, and those of the NVIDIA wheels that PyTorch brings along.
fn elsewhere(machine: &Machine) -> Vec<PathBuf> {
    const QUESTION: &str = "import importlib.util as u; s = u.find_spec('nvidia'); \
        [print('isonorm', p + '/cu13') for p in (s.submodule_search_locations if s else [])]";
    let mut folders = Vec::new();
    for toolkit in ["CUDA_HOME", "CUDA_PATH"].iter().filter_map(|name| machine.variable(name)) {
        folders.push(toolkit.to_owned());
        // In NVIDIA's own installation lib64/ and include/ are links to those of the target.
        let targets = fs::read_dir(toolkit.join("targets")).into_iter().flatten().flatten();
        folders.extend(targets.map(|entry| entry.path()));
    }
    folders.extend(ask_pythons(machine, QUESTION).into_iter().map(PathBuf::from));
    folders.retain(|folder| folder.join("lib/libnvrtc.so.13").exists());
    folders
}
