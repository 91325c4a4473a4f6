//! Kernels for a GPU on the PTX executor, as a user asks about them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use isonorm_cuda::compile::locate;
use serde_json::Value;

use super::{isonorm, json, text};

/// PTX that NVRTC made of kernels/cuda/rows.cu for short rows of f32, and the manifest of it.
fn planted(folder: &Path, name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ptx/tests/ptx/planted").join(format!("{name}.ptx"));
    let source = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let entry = source.split(".entry ").nth(1).and_then(|rest| rest.split('(').next()).expect("an entry");
    let manifest = format!(
        "source = \"kernel.ptx\"\n[[kernel]]\nname = \"planted.layer_norm\"\nop = \"layer_norm\"\ndirection = \"forward\"\ndtypes = [\"f32\"]\n\
         sizes = {{ d = [200] }}\n[[kernel.launch]]\nwhen = \"r > 0\"\nentry = \"{entry}\"\n\
         arguments = [\"x\", \"null\", \"weight\", \"bias\", \"y\", \"null\", \"r: i64\", \"d: i32\", \"0: i32\", \"eps: f32\"]\n\
         grid = [\"r\"]\nblock = [64]\n"
    );
    std::fs::write(folder.join("kernel.toml"), manifest).expect("written");
    let file = folder.join("kernel.ptx");
    std::fs::write(&file, source).expect("written");
    file
}

fn certify(file: &Path, cases: &str, out: &Path) -> Output {
    let (file, out) = (file.display().to_string(), out.display().to_string());
    isonorm(&["certify", "--cuda", &file, "--cases", cases, "--format", "json", "--out", &out])
}

#[test]
fn ptx_is_certified_and_a_planted_race_is_found_and_replayed() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let output = certify(&planted(folder.path(), "none"), "1000", &out);
    let document = json(&output);
    assert_eq!(output.status.code(), Some(0), "{document:#}");
    let kernel = &document["kernels"][0];
    assert_eq!((&kernel["verdict"], &kernel["device"]), (&Value::from("certified"), &Value::from("ptx")));
    assert!(kernel["cases"].as_u64().is_some_and(|cases| cases > 500), "{document:#}");
    let certificate = std::fs::read_to_string(out.join("certificates/planted.layer_norm.md")).expect("a certificate");
    for part in [
        "| device | ptx: executed on the PTX executor, not on a GPU |",
        "Executed on the PTX executor",
        "| f32 | x | 1 | 1 | 0 | 0 | 0 | 0 |",
        "not asked: too large",
    ] {
        assert!(certificate.contains(part), "{part} is not in: {certificate}");
    }

    let file = planted(folder.path(), "no_barrier_before_reuse");
    let output = certify(&file, "100", &out);
    let document = json(&output);
    assert_eq!(output.status.code(), Some(1), "{document:#}");
    let findings = document["kernels"][0]["findings"].as_array().expect("findings");
    let race = findings.iter().find(|finding| finding["property"] == "race_free").expect("a race");
    let message = race["message"].as_str().unwrap_or_default();
    assert!(message.contains("with no barrier between") && message.contains("PTX line"), "{message}");
    // The smallest case has one row of the size that the kernel is compiled for.
    let case = race["case"].as_str().unwrap_or_default();
    assert!(case.contains("r=- d=200 "), "{case}");
    let records = std::fs::read_to_string(out.join("records.jsonl")).expect("records");
    let line =
        records.lines().find(|line| line.contains("\"race_free\"") && line.contains("\"finding\"")).expect("a finding");
    let finding: Value = serde_json::from_str(line).expect("a record");
    let replay = finding["replay"].as_str().unwrap_or_default();
    let words = replay.strip_prefix("cargo isonorm ").expect("a command");
    let mut command = Command::new("sh");
    let output = command.args(["-c", &format!("{} {words}", env!("CARGO_BIN_EXE_isonorm"))]).output().expect("a shell");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("FAILED race_free"), "{}", text(&output.stdout));
}

#[test]
fn what_cannot_be_run_keeps_a_kernel_from_being_certified() {
    let folder = tempfile::tempdir().expect("a folder");
    let (manifest, out) = (folder.path().join("kernel.toml"), folder.path().join("out"));
    let file = planted(folder.path(), "none");
    let right = std::fs::read_to_string(&manifest).expect("a manifest");
    let change = |from: &str, to: &str| {
        assert!(right.contains(from), "{from}");
        std::fs::write(&manifest, right.replace(from, to)).expect("written");
        certify(&file, "40", &out)
    };
    let refused = |output: Output, mention: &str| {
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(mention), "{mention} is not in: {said}");
    };
    // What never fits is said at once.
    refused(change("\"bias\", ", ""), "`arguments` has 9 of them");
    refused(change("sizes = { d", "sizes = { c"), "`sizes` names `c`; the axes of layer_norm are r, d");
    refused(change("\"x\", ", "\"X\", "), "the tensors of layer_norm forward are x, weight, bias, y");
    // What fits some cases only keeps it from being certified, whatever became of the others.
    let output = change("entry = \"", "entry = \"{{ 'no' if r > 4 else '' }}");
    assert!(text(&output.stdout).contains("\"incomplete\""), "{}", text(&output.stdout));
    refused(output, "could not be run: the PTX has no kernel `no");
    // An instruction that the executor does not know is never passed.
    let source = std::fs::read_to_string(&file).expect("PTX");
    std::fs::write(&file, source.replacen("ret;", "wgmma.fence.sync.aligned;\n\tret;", 1)).expect("written");
    refused(change("[64]", "[64]"), "has what the executor does not know");
}

#[test]
fn the_gate_fails_for_a_tensor_that_is_read_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let gate = |file: &Path, more: &[&str]| {
        let (baseline, out, file) = (path("baseline.json"), path("out"), file.display().to_string());
        isonorm(&[&["gate", "--cuda", &file, "--baseline", &baseline, "--out", &out], more].concat())
    };
    let right = planted(folder.path(), "none");
    assert_eq!(gate(&right, &["--update", "--cases", "60"]).status.code(), Some(0));
    let same = gate(&right, &[]);
    assert_eq!(same.status.code(), Some(0), "{}", text(&same.stdout));
    let worse = gate(&planted(folder.path(), "reads_twice"), &[]);
    let said = text(&worse.stdout);
    assert_eq!(worse.status.code(), Some(1), "{said}");
    assert!(
        said.contains("REGRESSION traffic: planted.layer_norm f32 x read") && said.contains("grew from 1 to 2"),
        "{said}"
    );
    assert!(!said.contains("correctness: "), "{said}");
}

#[test]
fn bench_counts_instead_of_timing() {
    let folder = tempfile::tempdir().expect("a folder");
    let bench = |name: &str, more: &[&str]| {
        let file = planted(folder.path(), name).display().to_string();
        isonorm(&[&["bench", "--cuda", &file, "--shape", "32x200"], more].concat())
    };
    let output = bench("none", &[]);
    let said = text(&output.stdout);
    assert!(output.status.success() && said.contains("executed on the PTX executor, not on a GPU"), "{said}");
    let document = json(&bench("reads_twice", &["--format", "json"]));
    let tensors = document[0]["launches"]["tensors"].as_array().expect("tensors");
    let x = tensors.iter().find(|tensor| tensor["name"] == "x").expect("x");
    assert_eq!(x["read"], 2.0, "{document:#}");
    // What is wrong is a finding here too.
    let wrong = bench("half_mask", &[]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stderr).contains("FAILED planted.layer_norm: warp_masks"), "{}", text(&wrong.stderr));
}

#[test]
fn built_in_kernels_are_listed_and_need_nvrtc() {
    let listed = json(&isonorm(&["list", "kernels", "--device", "ptx", "--format", "json"]));
    let names: Vec<&str> = listed.as_array().expect("a list").iter().filter_map(|item| item["name"].as_str()).collect();
    assert!(names.contains(&"isonorm.cuda.rms_norm.forward"), "{names:?}");
    assert!(names.iter().all(|name| name.starts_with("isonorm.cuda.")), "{names:?}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_isonorm"));
    command
        .args(["certify", "--device", "ptx", "--cases", "1", "--out"])
        .arg(tempfile::tempdir().expect("a folder").path());
    let output = command.env("ISONORM_NVRTC", "/nonexistent").output().expect("the command starts");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("ISONORM_NVRTC is /nonexistent") && said.contains("pip install nvidia-cuda-nvrtc"), "{said}");
}

const SOURCE: &str = r#"
#include <cuda_bf16.h>
// One thread a row: slow, and easy to see through.
template <class T> __global__ void rms_norm(const T* x, T* y, int d, float eps) {
    x += blockIdx.x * d, y += blockIdx.x * d;
    float sum = 0.f;
    for (int i = threadIdx.x; i < d; i += blockDim.x) sum += float(x[i]) * float(x[i]);
    const float rrms = 1.f / sqrtf(sum / d + eps);
    for (int i = threadIdx.x; i < d; i += blockDim.x) y[i] = T(float(x[i]) * rrms);
}
"#;
const MANIFEST: &str = r#"
source = "kernel.cu"
[[kernel]]
name = "mine.rms_norm"
op = "rms_norm"
direction = "forward"
dtypes = ["f32", "bf16"]
requires = [{ that = "not has.weight", because = "there is no weight here" }]
[[kernel.launch]]
when = "r > 0"
entry = "rms_norm<{{ data }}>"
arguments = ["x", "y", "d: i32", "eps: f32"]
grid = ["r"]
block = [1]
"#;

#[test]
fn cuda_is_compiled_by_nvrtc_and_certified() {
    if let Err(error) = locate() {
        eprintln!("SKIPPED, because there is no NVRTC to compile with: {error}");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (file, out) = (folder.path().join("kernel.cu"), folder.path().join("out"));
    let asked = |source: &str, cases: &str| {
        std::fs::write(&file, source).expect("written");
        std::fs::write(folder.path().join("kernel.toml"), MANIFEST).expect("written");
        let output = certify(&file, cases, &out);
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, document, said) = asked(SOURCE, "400");
    assert_eq!(code, Some(0), "{document}{said}");
    // The finding names the line of the source.
    let (code, document, said) =
        asked(&SOURCE.replace("i < d; i += blockDim.x) y", "i <= d; i += blockDim.x) y"), "40");
    assert_eq!(code, Some(1), "{document}{said}");
    assert!(document.contains("accesses_inside") && document.contains("kernel.cu:9"), "{document}");
    // What does not compile is told with the compiler's words.
    let (code, document, said) = asked(&SOURCE.replace("float sum = 0.f;", "float sum = zero;"), "40");
    assert_eq!((code, document.as_str()), (Some(2), ""), "{said}");
    assert!(
        said.contains("kernel.cu does not compile for `rms_norm<float>`") && said.contains("\"zero\" is undefined"),
        "{said}"
    );
}
