//! That the committed PTX is what the compilers make of its sources, byte for byte. NVRTC is what `ISONORM_NVRTC` names or
//! `cargo isonorm` has put into the target folder; Triton is that of the Python. What is not there is skipped and said.

use std::env;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
const CUDA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../kernels/cuda");

/// Whether all files are the same, and what was said.
fn check(tests: &Path) -> (bool, String) {
    let named = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let fetched = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("nvrtc");
    let output = Command::new(named("ISONORM_PYTHON").unwrap_or_else(|| "python3".into()))
        .arg(tests.join("generate.py"))
        .arg("--check")
        .env("ISONORM_NVRTC", named("ISONORM_NVRTC").unwrap_or_else(|| fetched.into()))
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            return (true, format!("SKIPPED: the committed PTX was not compared: no Python starts ({error})"));
        }
    };
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    (output.status.success(), said)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to)
        } else {
            _ = fs::copy(entry.path(), to).unwrap()
        }
    }
}

#[test]
fn committed_ptx_is_what_the_compilers_make() {
    let (same, said) = check(Path::new(TESTS));
    for line in said.lines().filter(|line| line.starts_with("SKIPPED")) {
        // Past the capture of the test harness: a skip must be seen.
        let _ = writeln!(io::stderr(), "{line}");
    }
    assert!(same, "regenerate with harness/ptx/tests/generate.py:\n{said}");
}

/// One character of a source, and one file that is not there.
#[test]
fn a_difference_is_noticed() {
    let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("generated");
    let _ = fs::remove_dir_all(&root);
    let tests = root.join("harness/ptx/tests");
    copy(&Path::new(TESTS).join("ptx"), &tests.join("ptx"));
    fs::copy(Path::new(TESTS).join("generate.py"), tests.join("generate.py")).unwrap();
    copy(Path::new(CUDA), &root.join("kernels/cuda"));
    copy(&Path::new(TESTS).join("../../examples"), &root.join("harness/examples"));
    let source = tests.join("ptx/features.cu");
    let text = fs::read_to_string(&source).unwrap();
    let changed = text.replacen("v == 3", "v == 4", 1);
    assert!(changed != text);
    fs::write(source, changed).unwrap();
    fs::remove_file(tests.join("ptx/rms_norm_backward_f32.ptx")).unwrap();

    let (same, said) = check(&tests);
    let skipped = said.contains("SKIPPED: the files that NVRTC") || said.contains("no Python starts");
    if skipped {
        let _ = writeln!(io::stderr(), "SKIPPED: without NVRTC no difference can be planted");
        return;
    }
    let different: Vec<&str> = said.lines().filter_map(|line| line.strip_suffix(" differs")).collect();
    assert!(!same && different == ["rms_norm_backward_f32", "features"], "{said}");
}
