//! Norm kernels of a published Triton library, launched as the library launches them; the library is whatever Python has installed.

use std::io::{self, Write as _};
use std::process::Command;

use super::{certify, examples};

/// What was installed when this was written: other versions may have other faults.
const VERSION: &str = "0.8.5";

/// Verdicts, and what is wrong.
///
/// - `llama` backward multiplies dy and the rounded x̂ in half precision before it sums in f32 (`dW_row += dY_row * (X_row *
///   rstd_row).to(X_dtype)`): hundreds of times the bound, where the definition rounds x̂ only. In f32 it is right.
/// - `llama` forward computes `x̂ * (0.0 + weight)`, so that a weight of −0 loses its sign.
const EXPECTED: [(&str, &[&str]); 6] = [
    ("liger.layer_norm.forward", &[]),
    ("liger.layer_norm.backward", &[]),
    ("liger.rms_norm.llama.forward", &["sign_of_zero"]),
    ("liger.rms_norm.llama.backward", &["within_bound", "exact_rounding"]),
    ("liger.rms_norm.gemma.forward", &[]),
    ("liger.rms_norm.gemma.backward", &[]),
];

/// The version of Liger-Kernel, if it can be used here; if not, that is said.
fn liger() -> Option<String> {
    let skipped = |why: String| {
        let _ = writeln!(io::stderr(), "SKIPPED, no published Triton library was certified: {why}");
        None
    };
    let triton = match isonorm_cuda::compile::triton() {
        Ok(triton) => triton,
        Err(error) => return skipped(error.to_string()),
    };
    let ask = "import importlib.metadata as m; print(m.version('liger-kernel'))";
    let output = Command::new(&triton.python).args(["-c", ask]).output().expect("Python starts");
    match String::from_utf8_lossy(&output.stdout).trim() {
        VERSION => Some(VERSION.to_owned()),
        "" => skipped(format!(
            "{} has no liger-kernel (`python3 -m pip install --no-deps liger-kernel=={VERSION} packaging`)",
            triton.python
        )),
        other => skipped(format!("liger-kernel is {other}, and what is expected is known of {VERSION}")),
    }
}

#[test]
fn liger_kernel() {
    if liger().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let what = examples().join("triton/liger.py").display().to_string();
    let (output, document) = certify(&what, 400, folder.path());
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    for (name, wrong) in EXPECTED {
        let kernels = document["kernels"].as_array().expect("kernels");
        let kernel = kernels.iter().find(|kernel| kernel["kernel"] == name || kernel["name"] == name);
        let kernel = kernel.unwrap_or_else(|| panic!("{name} is not in {document:#}"));
        let findings = kernel["findings"].as_array().expect("findings");
        let mut found: Vec<&str> = findings.iter().filter_map(|finding| finding["property"].as_str()).collect();
        found.sort_unstable();
        found.dedup();
        let mut wrong = wrong.to_vec();
        wrong.sort_unstable();
        assert_eq!(found, wrong, "{name}: {findings:#?}");
        assert_eq!(kernel["verdict"], if wrong.is_empty() { "certified" } else { "failed" }, "{name}");
    }
}
