//! `cargo isonorm VERB …`, the first program that runs in a fresh clone.
//!
//! It needs no libtorch itself. It finds or gets libtorch, and NVRTC where CUDA C++ will be compiled, builds the workspace
//! and hands over: `test` to `cargo test`, every other verb to the `isonorm` command, whose exit status it returns. It
//! exits with 2 when it cannot get that far, and says what to do.

mod error;
mod libtorch;
mod machine;
mod nvrtc;
mod part;
#[cfg(test)]
mod tests;
mod wheels;
mod workspace;

use std::convert::Infallible;
use std::env;
use std::ffi::OsString;
use std::process::{Command, ExitCode};

use error::Error;
use libtorch::LIBTORCH;
use machine::Machine;
use nvrtc::NVRTC;
use workspace::Workspace;

fn main() -> ExitCode {
    match hand_over(env::args_os().skip(1).collect()) {
        Err(error) => {
            eprintln!("isonorm: {error}");
            ExitCode::from(2)
        }
        Ok(never) => match never {},
    }
}

/// Puts in place what is needed, builds, and replaces this process by the program that was asked for.
fn hand_over(arguments: Vec<OsString>) -> Result<Infallible, Error> {
    let machine = Machine::here();
    let workspace = Workspace::find(&machine)?;
    let libtorch = LIBTORCH.ensure(&workspace, &machine)?;
    let nvrtc = if nvrtc::is_needed(&arguments) { Some(NVRTC.ensure(&workspace, &machine)?) } else { None };

    let mut program = match arguments.split_first() {
        Some((verb, rest)) if verb == "test" => {
            let mut cargo = workspace.cargo(&machine, "test");
            cargo.args(rest);
            cargo
        }
        _ => {
            let mut isonorm = Command::new(workspace.build_isonorm(&machine, &libtorch)?);
            isonorm.args(arguments);
            workspace::add_library_path(&mut isonorm, &libtorch);
            isonorm
        }
    };
    program.env("LIBTORCH", &libtorch);
    program.envs(nvrtc.map(|nvrtc| (NVRTC.variable, nvrtc)));
    Err(workspace::replace_this_process(program))
}
