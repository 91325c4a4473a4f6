//! Kernels for devices as a user brings them: the examples are certified, and with one line changed they are not.

mod driver;
mod published;
mod python;
mod sanitizer;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// One line of an example, as someone might get it wrong.
struct Bug {
    name: &'static str,
    /// `cuda/rms_norm.cu`, `triton/rms_norm.py:rms_norm_forward`.
    example: &'static str,
    right: &'static str,
    wrong: &'static str,
}

const fn bug(name: &'static str, example: &'static str, right: &'static str, wrong: &'static str) -> Bug {
    Bug { name, example, right, wrong }
}

const CUDA: &[&str] = &["cuda/rms_norm.cu", "cuda/rms_norm_f32.ptx"];
const TRITON: &[&str] = &[
    "triton/rms_norm.py:rms_norm_forward",
    "triton/rms_norm.py:rms_norm_backward",
    "triton/layer_norm.py:layer_norm_forward",
    "triton/layer_norm.py:layer_norm_backward",
];

const CUDA_BUGS: &[Bug] = &[
    bug("no barrier in the tree", "cuda/rms_norm.cu", "+ half];\n        __syncthreads();", "+ half];"),
    bug("no barrier before the tree", "cuda/rms_norm.cu", "= sum;\n    __syncthreads();", "= sum;"),
    bug("eps outside the root", "cuda/rms_norm.cu", "rsqrtf(sums[0] / d + eps)", "rsqrtf(sums[0] / d) + eps"),
    bug(
        "one entry too many",
        "cuda/rms_norm.cu",
        "i < d; i += blockDim.x) {\n        const float s",
        "i <= d; i += blockDim.x) {\n        const float s",
    ),
    bug("a sum of half precision", "cuda/rms_norm.cu", "float sum = 0;", "T sum = 0.0f;"),
    bug(
        "the weight is not looked for",
        "cuda/rms_norm.cu",
        "weight ? static_cast<float>(weight[i]) : 1.0f",
        "static_cast<float>(weight[i])",
    ),
    bug(
        "rows overlap",
        "cuda/rms_norm.cu",
        "y += static_cast<size_t>(blockIdx.x) * d;",
        "y += static_cast<size_t>(blockIdx.x) * (d - 1);",
    ),
    bug(
        "a row rounded before it is scaled",
        "cuda/rms_norm.cu",
        "static_cast<float>(x[i]) * rrms *",
        "static_cast<float>(static_cast<T>(static_cast<float>(x[i]) * rrms)) *",
    ),
];

const TRITON_BUGS: &[Bug] = &[
    bug("the mean over the block", TRITON[0], "axis=0) / d + eps", "axis=0) / BLOCK + eps"),
    bug(
        "eps outside the root",
        TRITON[0],
        "1.0 / tl.sqrt_rn(tl.sum(v * v, axis=0) / d + eps)",
        "1.0 / (tl.sqrt_rn(tl.sum(v * v, axis=0) / d) + eps)",
    ),
    bug("a sum of half precision", TRITON[0], "other=0.0).to(tl.float32)", "other=0.0)"),
    bug("the store is not masked", TRITON[0], "out.to(y.dtype.element_ty), mask=mask)", "out.to(y.dtype.element_ty))"),
    bug(
        "every other row is left out",
        TRITON[1],
        "range(tl.program_id(0), r, tl.num_programs(0))",
        "range(tl.program_id(0), r, 2 * tl.num_programs(0))",
    ),
    bug("the share of one row only", TRITON[1], "share += g * xhat", "share = g * xhat"),
    bug(
        "partials on top of each other",
        TRITON[1],
        "tl.program_id(0).to(tl.int64) * d + columns, share",
        "columns, share",
    ),
    bug("partials are not all added up", TRITON[1], "in range(programs)", "in range(programs - 1)"),
    bug(
        "the centred row is not masked",
        TRITON[2],
        "tl.where(mask, v - tl.sum(v, axis=0) / d, 0.0)",
        "v - tl.sum(v, axis=0) / d",
    ),
    bug(
        "the mean of squares less the square of the mean",
        TRITON[2],
        "tl.sum(centered * centered, axis=0) / d",
        "(tl.sum(v * v, axis=0) / d - (tl.sum(v, axis=0) / d) * (tl.sum(v, axis=0) / d))",
    ),
    bug(
        "the bias is scaled",
        TRITON[2],
        "out += tl.load(bias + columns, mask=mask).to(tl.float32)",
        "out += rstd * tl.load(bias + columns, mask=mask).to(tl.float32)",
    ),
    bug("the mean of dy without the weight", TRITON[3], "tl.sum(t, axis=0) / d - xhat", "tl.sum(g, axis=0) / d - xhat"),
    bug("dbias is dweight", TRITON[3], "bias_share += g\n", "bias_share += g * xhat\n"),
];

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// Certifies `file`, or `file:function`, and gives the whole answer.
fn certify(what: &str, cases: u32, out: &Path) -> (Output, Value) {
    let triton = what.contains(".py");
    let option = if triton { "--triton" } else { "--cuda" };
    let python = triton.then(|| python::with_triton().expect("a Python with Triton"));
    let output = Command::new(env!("CARGO_BIN_EXE_isonorm"))
        .envs(python.map(|python| ("ISONORM_PYTHON", python)))
        .args(["certify", option, what, "--cases", &cases.to_string(), "--format", "json", "--out"])
        .arg(out)
        .output()
        .expect("the command starts");
    let document = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output, document)
}

/// What an example's copy with a bug is called on the command line.
fn planted(bug: &Bug, folder: &Path) -> String {
    let (file, function) = bug.example.split_once(':').map_or((bug.example, ""), |(file, function)| (file, function));
    let source = examples().join(file);
    let text = fs::read_to_string(&source).expect("the example");
    assert_eq!(text.matches(bug.right).count().min(1), 1, "{}: the example has no `{}`", bug.name, bug.right);
    let copy = folder.join(source.file_name().expect("a name"));
    fs::write(&copy, text.replacen(bug.right, bug.wrong, usize::MAX)).expect("written");
    fs::copy(source.with_extension("toml"), copy.with_extension("toml")).expect("the manifest");
    let colon = if function.is_empty() { "" } else { ":" };
    format!("{}{colon}{function}", copy.display())
}

fn examples_pass_and_bugs_are_found(passing: &[&str], bugs: &[Bug]) {
    let folder = tempfile::tempdir().expect("a folder");
    for example in passing {
        let what = examples().join(example).display().to_string();
        let (output, document) = certify(&what, 300, &folder.path().join("out"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{example}: {said}\n{document:#}");
        assert_eq!(document["kernels"][0]["verdict"], "certified", "{example}: {document:#}");
        assert_eq!(document["kernels"][0]["device"], "ptx", "{example}");
        assert!(document["kernels"][0]["cases"].as_u64().is_some_and(|cases| cases > 100), "{example}: {document:#}");
    }
    let mut missed = Vec::new();
    for bug in bugs {
        let (output, document) = certify(&planted(bug, folder.path()), 100, &folder.path().join("out"));
        match output.status.code() {
            Some(1) => {
                let finding = &document["kernels"][0]["findings"][0];
                eprintln!("{:50} {}: {}", bug.name, finding["property"], finding["case"]);
            }
            Some(0) => missed.push(bug.name),
            _ => panic!("{}: {}", bug.name, String::from_utf8_lossy(&output.stderr)),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:#?}");
}

/// Whether CUDA C++ cannot be compiled here; then that is said.
fn no_nvrtc() -> bool {
    let located = isonorm_cuda::compile::locate();
    if let Err(error) = &located {
        let _ = writeln!(io::stderr(), "SKIPPED, no CUDA C++ was compiled: {error}");
    }
    located.is_err()
}

#[test]
fn cuda() {
    if no_nvrtc() {
        return;
    }
    examples_pass_and_bugs_are_found(CUDA, CUDA_BUGS);
}

#[test]
fn triton() {
    if python::with_triton().is_none() {
        return;
    }
    examples_pass_and_bugs_are_found(TRITON, TRITON_BUGS);
}
