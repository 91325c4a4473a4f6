//! Everything around a GPU, tried with the driver's interface in front of the PTX executor (`harness/ptx/examples/cuda.rs`): what
//! is copied where, what launches get, what a fault ends, what is timed. It needs no GPU and says nothing about one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use super::{CUDA_BUGS, no_nvrtc, planted};

/// What the stand-in calls itself.
const NAME: &str = "PTX executor, no GPU";

/// The folder with the stand-in for `libcuda.so`, made anew if it is not there or old.
fn driver() -> PathBuf {
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--package", "isonorm-ptx", "--example", "cuda"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo starts");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Path::new(env!("CARGO_BIN_EXE_isonorm")).with_file_name("examples")
}

/// `isonorm` with these arguments where the stand-in is the driver.
fn isonorm(arguments: &[&str]) -> (Output, Value) {
    let libraries = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let folders = std::iter::once(driver()).chain(std::env::split_paths(&libraries));
    let output = Command::new(env!("CARGO_BIN_EXE_isonorm"))
        .args(arguments)
        .env("LD_LIBRARY_PATH", std::env::join_paths(folders).expect("folders"))
        .output()
        .expect("the command starts");
    let document = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output, document)
}

fn records(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.lines().map(|line| serde_json::from_str(line).expect("a record")).collect()
}

#[test]
fn kernels_are_certified_and_the_device_is_named() {
    if no_nvrtc() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().to_str().expect("a path");
    // Rows in warps, blocks and clusters; channels first and last; several launches with memory between them.
    let kernels = ["--op", "layer_norm,batch_norm", "--cases", "40", "--format", "json", "--out", out];
    let (output, document) = isonorm(&[&["certify", "--device", "cuda"], &kernels[..]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}\n{document:#}");
    let kernels = document["kernels"].as_array().expect("kernels");
    assert_eq!(kernels.len(), 4);
    for kernel in kernels {
        assert_eq!(kernel["verdict"], "certified", "{kernel:#}");
        assert_eq!(kernel["device"], "cuda");
    }
    let campaign = &records(&folder.path().join("records.jsonl"))[0];
    assert_eq!(campaign["machine"]["gpu"]["name"], NAME, "{campaign:#}");
    let report = fs::read_to_string(folder.path().join("report.html")).expect("a report");
    assert!(report.contains(NAME), "the report names the device");
}

/// Of the planted bugs, those that show on a GPU: what is wrong, what is written outside, and what faults.
#[test]
fn bugs_are_found_by_what_a_gpu_shows() {
    if no_nvrtc() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let visible = [
        ("eps outside the root", "within_bound"),
        ("a sum of half precision", "within_bound"),
        ("rows overlap", "within_bound"),
        ("one entry too many", "writes_inside"),
        ("the weight is not looked for", "survives"),
    ];
    for (name, property) in visible {
        let bug = CUDA_BUGS.iter().find(|bug| bug.name == name).expect("a bug of this name");
        let what = planted(bug, folder.path());
        let out = out.to_str().expect("a path");
        let (output, document) = isonorm(&[
            "certify", "--device", "cuda", "--cuda", &what, "--cases", "100", "--format", "json", "--out", out,
        ]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {said}\n{document:#}");
        let findings = document["kernels"][0]["findings"].as_array().expect("findings");
        assert!(findings.iter().any(|finding| finding["property"] == property), "{name}: {findings:#?}");
    }
}

#[test]
fn calls_are_timed_beside_a_copy() {
    if no_nvrtc() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().to_str().expect("a path");
    let kernels = ["--op", "rms_norm", "--dtype", "bf16", "--shape", "3x200", "--time", "20ms", "--out", out];
    let (output, _) = isonorm(&[&["bench", "--device", "cuda"], &kernels[..]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("nothing is compared with libtorch"), "{said}");
    let records = records(&folder.path().join("bench.jsonl"));
    assert_eq!(records[0]["machine"]["gpu"]["name"], NAME);
    let benches: Vec<&Value> = records.iter().filter(|record| record["record"] == "bench").collect();
    assert_eq!(benches.len(), 2, "forward and backward: {records:#?}");
    for bench in benches {
        assert_eq!((&bench["versus"], &bench["setting"]), (&"copy".into(), &"warm".into()));
        assert!(bench["rounds"].as_u64().is_some_and(|rounds| rounds >= 9), "{bench:#}");
        assert!(bench["seconds"]["value"].as_f64().is_some_and(|seconds| seconds > 0.0), "{bench:#}");
    }
}

#[test]
fn what_is_wrong_is_not_timed() {
    if no_nvrtc() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let bug = CUDA_BUGS.iter().find(|bug| bug.name == "eps outside the root").expect("a bug of this name");
    let what = planted(bug, folder.path());
    let out = folder.path().join("out");
    let shape = ["--shape", "4x64", "--dtype", "f32", "--time", "20ms", "--out", out.to_str().expect("a path")];
    let (output, _) = isonorm(&[&["bench", "--device", "cuda", "--cuda", &what], &shape[..]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(records(&out.join("bench.jsonl")).iter().all(|record| record["record"] != "bench"));
}

#[test]
fn what_needs_a_libtorch_for_the_gpu_says_so() {
    for arguments in [&["claims", "--device", "cuda"][..], &["bench", "--device", "cuda", "--versus", "libtorch"]] {
        let (output, _) = isonorm(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains("this libtorch cannot use the GPU: set LIBTORCH"), "{arguments:?}: {said}");
    }
}
