//! The `isonorm` command: one file a verb.

mod bench;
mod certify;
mod claims;
mod doctor;
mod explain;
mod gate;
mod identities;
mod kernels;
mod launches;
mod list;
mod replay;
mod report;
mod run;
mod shard;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// Certifies normalization kernels: do they compute the operator they claim, how accurately, on which inputs?
///
/// Exit status: 0 all well, 1 findings, 2 the question could not be asked.
#[derive(Debug, Parser)]
#[command(name = "isonorm", bin_name = "cargo isonorm", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Certify(certify::Arguments),
    Bench(bench::Arguments),
    List(list::Arguments),
    Explain(explain::Arguments),
    Gate(gate::Arguments),
    Identities(identities::Arguments),
    Claims(claims::Arguments),
    Replay(replay::Arguments),
    Report(report::Arguments),
    Doctor(doctor::Arguments),
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

/// How a command ended that could ask its question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Well,
    Findings,
}

/// Why the question could not be asked.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Operator(#[from] crate::campaign::UnknownOperator),
    #[error(transparent)]
    Case(#[from] crate::case::ParseCaseError),
    #[error(transparent)]
    Run(#[from] crate::run::RunError),
    #[error(transparent)]
    Library(#[from] isonorm_cuda::LibraryError),
    #[error(transparent)]
    Gpu(#[from] isonorm_cuda::driver::GpuError),
    #[error(transparent)]
    Report(#[from] isonorm_reports::Error),
    #[error(transparent)]
    Gate(#[from] isonorm_reports::gate::GateError),
    #[error(transparent)]
    Policy(#[from] isonorm_reports::gate::PolicyError),
    #[error("cannot print the answer: {0}")]
    Print(#[from] serde_json::Error),
    #[error("cannot print the answer: {0}")]
    Output(std::io::Error),
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers; everything else is usage.
            let code = if error.use_stderr() { 2 } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let answer = match cli.verb {
        Verb::Certify(arguments) => certify::run(arguments),
        Verb::Bench(arguments) => bench::run(arguments),
        Verb::List(arguments) => list::run(arguments),
        Verb::Explain(arguments) => explain::run(arguments),
        Verb::Gate(arguments) => gate::run(arguments),
        Verb::Identities(arguments) => identities::run(arguments),
        Verb::Claims(arguments) => claims::run(arguments),
        Verb::Replay(arguments) => replay::run(arguments),
        Verb::Report(arguments) => report::run(arguments),
        Verb::Doctor(arguments) => doctor::run(arguments),
    };
    match answer {
        Ok(Answer::Well) => ExitCode::SUCCESS,
        Ok(Answer::Findings) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("isonorm: {error}");
            ExitCode::from(2)
        }
    }
}

/// Prints one JSON document.
fn print_json(document: &impl serde::Serialize) -> Result<(), Error> {
    print_text(&format!("{}\n", serde_json::to_string_pretty(document)?))
}

/// Prints an answer. A reader who has seen enough (`| head`) is not an error.
fn print_text(text: &str) -> Result<(), Error> {
    use std::io::{ErrorKind, Write};
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::Output(error)),
        _ => Ok(()),
    }
}
