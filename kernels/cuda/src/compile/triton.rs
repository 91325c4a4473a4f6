//! Triton functions to PTX: `triton.py` runs in the user's Python and answers one request a line.
//!
//! One process serves a whole campaign, because starting Python and importing Triton (and, for many a file, torch) takes
//! longer than to compile. Triton keeps what it compiled on disk itself, under the source of all that a function uses.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{CompileError, Compiled, Source};
use crate::launch::{Given, ScalarType, Step};

const SCRIPT: &str = include_str!("triton.py");

/// A Python with Triton.
pub struct Triton {
    /// Triton's version.
    pub version: String,
    /// The path of the Python.
    pub python: String,
    worker: Mutex<Worker>,
}

/// The Triton of the Python that `ISONORM_PYTHON` names, or else of `python3`; started once.
///
/// # Errors
/// If there is no such Python, or no Triton in it: what to do.
pub fn triton() -> Result<&'static Triton, CompileError> {
    static STARTED: OnceLock<Result<Triton, CompileError>> = OnceLock::new();
    let start = || {
        let named = std::env::var_os("ISONORM_PYTHON").filter(|name| !name.is_empty());
        Triton::start(named.unwrap_or_else(|| "python3".into()))
    };
    STARTED.get_or_init(start).as_ref().map_err(Clone::clone)
}

impl Triton {
    /// Starts a Python.
    fn start(python: OsString) -> Result<Self, CompileError> {
        let mut worker = Worker::start(python)?;
        match worker.read()? {
            Answer::Refused { error } => Err(CompileError::Unavailable(format!(
                "{error}. Install it (`{} -m pip install triton`), or name another Python in ISONORM_PYTHON",
                worker.python
            ))),
            Answer::Given(Greeting { triton, python }) => {
                Ok(Triton { version: triton, python, worker: Mutex::new(worker) })
            }
        }
    }

    /// Compiles what a launch runs.
    pub(super) fn compile(&self, source: &Source, step: &Step, aligned: bool) -> Result<Compiled, CompileError> {
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        match worker.ask(&request(source, step, aligned))? {
            Answer::Given(Built { ptx, name, threads, shared, arguments, nulls }) => {
                let (block, shared) = (Some([threads, 1, 1]), Some(shared));
                Ok(Compiled { ptx, name, block, cluster: None, shared, arguments: Some(arguments), nulls })
            }
            Answer::Refused { error } => {
                let (file, entry) = (source.name.clone(), step.entry.clone());
                Err(CompileError::Refused { file, entry, log: error })
            }
        }
    }
}

/// What is asked for a launch, one line of JSON.
fn request(source: &Source, step: &Step, aligned: bool) -> String {
    let options = [("num_warps", step.num_warps), ("num_stages", step.num_stages)];
    let request = Request {
        file: source.path.as_deref().unwrap_or(Path::new(&source.name)),
        kernel: &step.entry,
        arch: source.arch.trim_start_matches("sm_"),
        arguments: step.arguments.iter().map(|given| argument(given, aligned)).collect(),
        constants: step.constants.iter().map(|(name, literal)| (name.as_str(), literal.as_str())).collect(),
        options: options.into_iter().filter_map(|(name, number)| Some((name, number?))).collect(),
    };
    serde_json::to_string(&request).unwrap_or_default()
}

#[derive(Serialize)]
struct Request<'a> {
    file: &'a Path,
    kernel: &'a str,
    /// `90` for `sm_90`.
    arch: &'a str,
    /// In the order of the function's parameters that are no constants. `None` is Python's.
    arguments: Vec<Option<Argument>>,
    /// As Python writes them.
    constants: BTreeMap<&'a str, &'a str>,
    options: BTreeMap<&'static str, u32>,
}

/// What Triton's launcher looks at in an argument that is a tensor or a number.
#[derive(Serialize)]
struct Argument {
    r#type: String,
    /// An integer that is 1.
    one: bool,
    /// An integer or an address that is a multiple of 16.
    aligned: bool,
}

fn argument(given: &Given, aligned: bool) -> Option<Argument> {
    Some(match given {
        Given::Null => return None,
        Given::Tensor(_, dtype) => Argument { r#type: format!("*{dtype}"), one: false, aligned },
        Given::Scratch(_, dtype) => Argument { r#type: format!("*{dtype}"), one: false, aligned: true },
        Given::Scalar(kind, bytes) => {
            // Little-endian: an integer is 1 if its first byte is 1 and no other is set, and 16 divides it if 16 divides the
            // first byte.
            let integer = !matches!(kind, ScalarType::F32 | ScalarType::F64);
            let one = integer && bytes.iter().enumerate().all(|(place, byte)| *byte == u8::from(place == 0));
            Argument { r#type: kind.to_string(), one, aligned: integer && bytes[0].is_multiple_of(16) }
        }
    })
}

#[derive(Deserialize)]
struct Greeting {
    triton: String,
    python: String,
}

#[derive(Deserialize)]
struct Built {
    ptx: String,
    name: String,
    threads: u32,
    shared: u32,
    arguments: Vec<usize>,
    nulls: usize,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer<T> {
    Refused { error: String },
    Given(T),
}

struct Worker {
    python: String,
    process: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    fn start(python: OsString) -> Result<Self, CompileError> {
        let name = python.to_string_lossy().into_owned();
        let failed = |reason: &dyn std::fmt::Display| {
            CompileError::Unavailable(format!(
                "`{name}` does not start ({reason}), and Triton functions need a Python with Triton: name one in ISONORM_PYTHON"
            ))
        };
        let mut process = Command::new(&python)
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(&error))?;
        let requests = process.stdin.take();
        let answers = process.stdout.take().ok_or_else(|| failed(&"it has no output"))?;
        Ok(Worker { python: name, process, requests, answers: BufReader::new(answers) })
    }

    fn ask<T: DeserializeOwned>(&mut self, line: &str) -> Result<Answer<T>, CompileError> {
        let written = match &mut self.requests {
            Some(requests) => writeln!(requests, "{line}").and_then(|()| requests.flush()),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        written.map_err(|error| self.ended(&error))?;
        self.read()
    }

    fn read<T: DeserializeOwned>(&mut self) -> Result<Answer<T>, CompileError> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(0) => Err(self.ended(&io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => serde_json::from_str(&line).map_err(|error| self.ended(&error.into())),
            Err(error) => Err(self.ended(&error)),
        }
    }

    /// The process is of no more use.
    fn ended(&mut self, error: &io::Error) -> CompileError {
        self.requests = None;
        let status = self.process.wait().map(|status| format!("; {status}")).unwrap_or_default();
        CompileError::Unavailable(format!(
            "`{}` ended while it compiled Triton functions ({error}{status}); its own words are above",
            self.python
        ))
    }
}
