//! The workspace as cargo sees it, and the builds in it.

use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::error::{At, Error};
use crate::machine::Machine;

pub struct Workspace {
    /// The folder of the workspace's `Cargo.toml`.
    pub root: PathBuf,
    /// Where cargo builds: `target` in the root unless the user says otherwise.
    pub target: PathBuf,
}

impl Workspace {
    /// Asks cargo, because only cargo knows what `CARGO_TARGET_DIR` and the configuration files make of the target folder.
    pub fn find(machine: &Machine) -> Result<Self, Error> {
        let output = machine
            .command(cargo_program())
            .args(["metadata", "--no-deps", "--format-version=1"])
            .stderr(Stdio::inherit())
            .output()
            .at("start", cargo_program())?;
        if !output.status.success() {
            return Err(Error::Build);
        }
        let answer = |reason: String| Error::Answer { program: "cargo metadata", reason };
        let metadata: Value = serde_json::from_slice(&output.stdout).map_err(|error| answer(error.to_string()))?;
        let folder = |key: &str| {
            let value = metadata[key].as_str().map(PathBuf::from);
            value.ok_or_else(|| answer(format!("it has no {key}")))
        };
        Ok(Workspace { root: folder("workspace_root")?, target: folder("target_directory")? })
    }

    /// A cargo command on the whole workspace, in the one profile that everything shares.
    pub fn cargo(&self, machine: &Machine, subcommand: &str) -> Command {
        let mut cargo = machine.command(cargo_program());
        cargo.args([subcommand, "--release", "--manifest-path"]).arg(self.root.join("Cargo.toml"));
        cargo
    }

    /// Builds the `isonorm` command, with the program that it runs strangers' kernels in, and says where it lies.
    pub fn build_isonorm(&self, machine: &Machine, libtorch: &Path) -> Result<PathBuf, Error> {
        let mut build = self
            .cargo(machine, "build")
            // The whole workspace and a small program that needs what tests need: dependencies get the features that
            // they have in tests, and all is built once.
            .args(["--workspace", "--bin", "isonorm", "--bin", "isonorm-kernel-worker", "--example", "throughput"])
            .arg("--message-format=json-render-diagnostics")
            .env("LIBTORCH", libtorch)
            .stdout(Stdio::piped())
            .spawn()
            .at("start", cargo_program())?;
        let mut isonorm = None;
        if let Some(messages) = build.stdout.take() {
            for line in BufReader::new(messages).lines() {
                let line = line.at("read from", cargo_program())?;
                isonorm = executable(&line).or(isonorm);
            }
        }
        let status = build.wait().at("wait for", cargo_program())?;
        if !status.success() {
            return Err(Error::Build);
        }
        isonorm.ok_or_else(|| Error::Answer {
            program: "cargo build",
            reason: "it names no executable isonorm".to_owned(),
        })
    }
}

/// Puts libtorch on the library path of a program that may have been linked without the run path of
/// `.cargo/config.toml`: `RUSTFLAGS` takes the place of the flags there.
pub fn add_library_path(program: &mut Command, libtorch: &Path) {
    if ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"].iter().all(|name| env::var_os(name).is_none()) {
        return;
    }
    let mut path = libtorch.join("lib").into_os_string();
    if let Some(others) = env::var_os("LD_LIBRARY_PATH") {
        path.push(":");
        path.push(others);
    }
    program.env("LD_LIBRARY_PATH", path);
}

/// The cargo that runs this program.
fn cargo_program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The executable `isonorm`, if that is what one of cargo's messages is about.
fn executable(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    if message["target"]["name"] != "isonorm" {
        return None;
    }
    message["executable"].as_str().map(PathBuf::from)
}

/// Becomes `program`: its terminal, signals and exit status are then the user's. Returns only if that failed.
pub fn replace_this_process(mut program: Command) -> Error {
    let source = program.stdin(Stdio::inherit()).exec();
    Error::Io { action: "start", path: program.get_program().into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_among_cargos_messages() {
        let program = r#"{"reason":"compiler-artifact","target":{"name":"isonorm"},"executable":"/t/release/isonorm"}"#;
        let other = r#"{"reason":"compiler-artifact","target":{"name":"build-script"},"executable":"/t/build"}"#;
        let library = r#"{"reason":"compiler-artifact","target":{"name":"isonorm"},"executable":null}"#;
        assert_eq!(executable(program), Some(PathBuf::from("/t/release/isonorm")));
        assert_eq!(executable(other), None);
        assert_eq!(executable(library), None);
        assert_eq!(executable("not JSON"), None);
    }
}
