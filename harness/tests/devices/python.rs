//! A Python with Triton and a published library: the one that `ISONORM_PYTHON` names, or one that is made for these tests.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// What is installed, none of it with torch: kernels need Triton alone.
const TRITON: [&str; 2] = ["triton==3.6.0", "packaging"];
pub const LIGER: &str = "0.8.5";

/// Its path; none if there is none and none can be made: then that is said.
pub fn with_triton() -> Option<&'static str> {
    static PYTHON: OnceLock<Option<String>> = OnceLock::new();
    let say = |why: String| {
        let _ = writeln!(io::stderr(), "SKIPPED, no Triton function was compiled: {why}");
    };
    let named = || std::env::var("ISONORM_PYTHON").ok().filter(|name| !name.is_empty());
    PYTHON.get_or_init(|| named().map_or_else(made, Ok).map_err(say).ok()).as_deref()
}

/// One of our own, which stays for the next time.
fn made() -> Result<String, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-liger-{LIGER}", TRITON[0]));
    let (python, complete) = (folder.join("bin/python").display().to_string(), folder.join("complete"));
    if complete.is_file() {
        return Ok(python);
    }
    let _ = writeln!(io::stderr(), "installing Triton (190 MB) in {}", folder.display());
    run("python3", &["-m", "venv", "--clear", &folder.display().to_string()])?;
    let install = |what: &[&str]| run(&python, &[&["-m", "pip", "install", "--quiet", "--no-input"], what].concat());
    install(&TRITON)?;
    install(&["--no-deps", &format!("liger-kernel=={LIGER}")])?;
    fs::write(complete, "").map_err(|error| error.to_string())?;
    Ok(python)
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let (said, line) = (String::from_utf8_lossy(&output.stderr), arguments.join(" "));
    Err(format!("`{program} {line}` failed: {}", said.trim().lines().last().unwrap_or("it says nothing")))
}
