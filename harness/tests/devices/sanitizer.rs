//! The executor's verdicts beside those of NVIDIA's compute-sanitizer, which watches the same kernels on a GPU.

use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use isonorm_cuda::driver::Gpu;

use super::{CUDA_BUGS, certify, examples, no_nvrtc, planted};

const TOOLS: [&str; 4] = ["memcheck", "racecheck", "initcheck", "synccheck"];
/// What the sanitizer is told to exit with where it finds something.
const FOUND: i32 = 99;

/// Bugs that both see: the property that fails on the executor, and the tool.
const BOTH: [(&str, &str, &str); 3] = [
    ("no barrier in the tree", "race_free", "racecheck"),
    ("no barrier before the tree", "race_free", "racecheck"),
    ("the weight is not looked for", "accesses_inside", "memcheck"),
];

/// A case on which the example is right: several warps, and no multiple of anything.
const CLEAN: &str = "rms_norm:forward dtype=f32 r=3 d=1001 eps=1e-5 cast=none with=weight family=normal seed=1";

/// Whether there is neither; then that is said.
fn cannot() -> bool {
    let missing = if let Err(error) = Gpu::open() {
        Some(error.to_string())
    } else {
        let version = Command::new("compute-sanitizer").arg("--version").stdout(Stdio::null()).status();
        version.err().map(|error| format!("compute-sanitizer: {error}"))
    };
    if let Some(why) = &missing {
        let _ = writeln!(io::stderr(), "SKIPPED, nothing was compared with compute-sanitizer: {why}");
    }
    missing.is_some() || no_nvrtc()
}

/// Whether a tool finds something while a case runs on the GPU.
fn finds(tool: &str, what: &str, case: &str) -> bool {
    let output = Command::new("compute-sanitizer")
        .args(["--tool", tool, "--error-exitcode", &FOUND.to_string(), "--print-limit", "1"])
        .arg(env!("CARGO_BIN_EXE_isonorm"))
        .args(["replay", "--device", "cuda", "--cuda", what, case])
        .output()
        .expect("compute-sanitizer starts");
    eprintln!("{tool}, {case}: {}", String::from_utf8_lossy(&output.stdout));
    output.status.code() == Some(FOUND)
}

#[test]
fn the_sanitizer_agrees() {
    if cannot() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let example = examples().join("cuda/rms_norm.cu").display().to_string();
    for tool in TOOLS {
        assert!(!finds(tool, &example, CLEAN), "{tool} finds something in a kernel that the executor certifies");
    }
    for (name, property, tool) in BOTH {
        let bug = CUDA_BUGS.iter().find(|bug| bug.name == name).expect("a bug of this name");
        let what = planted(bug, folder.path());
        let (_, document) = certify(&what, 100, &folder.path().join("out"));
        let findings = document["kernels"][0]["findings"].as_array().expect("findings");
        let finding = findings.iter().find(|finding| finding["property"] == property);
        let case = finding.and_then(|finding| finding["case"].as_str());
        let case = case.unwrap_or_else(|| panic!("{name}: the executor has no finding of {property}: {findings:#?}"));
        assert!(finds(tool, &what, case), "{name}: {tool} finds nothing in {case}");
    }
}
