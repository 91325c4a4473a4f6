//! Triton functions to PTX: `triton.py` runs in the user's Python and answers one request a line.
//!
//! One process serves a whole campaign, because starting Python and importing Triton (and, for many a file, torch) takes
//! longer than to compile. Triton keeps what it compiled on disk itself, under the source of all that a function uses.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const SCRIPT: &str = include_str!("triton.py");

/// Why a Triton function could not be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TritonError {
    /// There is no such Python.
    #[error(
        "`{python}` does not start ({reason}), and Triton functions need a Python with Triton: name one in ISONORM_PYTHON"
    )]
    Start {
        /// What was to be started.
        python: String,
        /// The system's words.
        reason: String,
    },
    /// The Python has no Triton, or one that is too old.
    #[error("{reason}. Install it (`{python} -m pip install triton`), or name another Python in ISONORM_PYTHON")]
    Missing {
        /// The Python that was asked.
        python: String,
        /// Its answer.
        reason: String,
    },
    /// The function cannot be compiled, or not so.
    #[error("{0}")]
    Refused(String),
    /// The process is gone or talks nonsense.
    #[error("`{python}` ended while it compiled Triton functions ({reason}); its own words are above")]
    Ended {
        /// The Python that was asked.
        python: String,
        /// What was seen of it.
        reason: String,
    },
}

/// What Triton's launcher looks at in an argument that is a tensor or a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Argument {
    /// `f32`, `i64`, ...; for a pointer that of its elements after a `*`.
    r#type: String,
    /// An integer that is 1.
    one: bool,
    /// An integer or an address that is a multiple of 16.
    aligned: bool,
}

impl Argument {
    /// A pointer to elements of type `f32`, `f64`, `bf16`, `f16` or an integer's.
    pub fn pointer(element: &str, address: u64) -> Self {
        Argument { r#type: format!("*{element}"), one: false, aligned: address.is_multiple_of(16) }
    }

    /// An integer of type `i32`, `i64`, `u32` or `u64`.
    pub fn integer(r#type: &str, value: i128) -> Self {
        Argument { r#type: r#type.to_owned(), one: value == 1, aligned: value % 16 == 0 }
    }

    /// A number of type `f32` or `f64`.
    pub fn real(r#type: &str) -> Self {
        Argument { r#type: r#type.to_owned(), one: false, aligned: false }
    }
}

/// What is to be compiled.
#[derive(Debug, Clone, Serialize)]
pub struct Request<'a> {
    /// The Python file.
    pub file: &'a Path,
    /// The name of a function with `@triton.jit` in it.
    pub kernel: &'a str,
    /// The architecture: 90 for `sm_90`.
    pub arch: u32,
    /// The arguments in the order of the function's parameters that are no constants. `None` is Python's `None`.
    pub arguments: Vec<Option<Argument>>,
    /// The parameters that are `tl.constexpr`, by name, as Python writes them.
    pub constants: BTreeMap<String, String>,
    /// `num_warps`, `num_stages` and what else Triton takes.
    pub options: BTreeMap<&'static str, u64>,
}

/// A Triton function for arguments of certain properties.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Compiled {
    /// The compiler's output.
    pub ptx: String,
    /// The kernel's name in it.
    pub entry: String,
    /// Threads of a block.
    pub threads: u32,
    /// Blocks of a cluster.
    pub cluster: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u64,
    /// Which arguments of the request the kernel still takes; the others have become constants.
    pub arguments: Vec<usize>,
    /// How many pointers to scratch memory follow them, all of which may be null.
    pub scratch: usize,
}

#[derive(Deserialize)]
struct Greeting {
    triton: String,
    python: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer<T> {
    Refused { error: String },
    Given(T),
}

/// A Python with Triton, and what it has compiled so far.
pub struct Triton {
    greeting: Greeting,
    state: Mutex<State>,
}

struct State {
    worker: Worker,
    compiled: HashMap<String, Result<Arc<Compiled>, TritonError>>,
}

impl Triton {
    /// Starts the Python that `ISONORM_PYTHON` names, or else `python3`.
    ///
    /// # Errors
    ///
    /// There is no such Python, or it has no Triton.
    pub fn start() -> Result<Self, TritonError> {
        let named = std::env::var_os("ISONORM_PYTHON").filter(|name| !name.is_empty());
        Self::start_python(named.unwrap_or_else(|| "python3".into()))
    }

    /// Starts a certain Python.
    ///
    /// # Errors
    ///
    /// There is no such Python, or it has no Triton.
    pub fn start_python(python: OsString) -> Result<Self, TritonError> {
        let mut worker = Worker::start(python)?;
        match worker.read()? {
            Answer::Refused { error } => Err(TritonError::Missing { python: worker.python.clone(), reason: error }),
            Answer::Given(greeting) => {
                Ok(Triton { greeting, state: Mutex::new(State { worker, compiled: HashMap::new() }) })
            }
        }
    }

    /// Triton's version.
    pub fn version(&self) -> &str {
        &self.greeting.triton
    }

    /// The path of the Python.
    pub fn python(&self) -> &str {
        &self.greeting.python
    }

    /// Compiles a function, once for arguments of the same properties.
    ///
    /// # Errors
    ///
    /// The file, the function, its arguments or its text are not right, in Python's and Triton's words.
    pub fn compile(&self, request: &Request<'_>) -> Result<Arc<Compiled>, TritonError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { worker, compiled } = &mut *state;
        let line = serde_json::to_string(request).map_err(|error| TritonError::Refused(error.to_string()))?;
        if let Some(known) = compiled.get(&line) {
            return known.clone();
        }
        let result = match worker.ask(&line) {
            Ok(Answer::Given(given)) => Ok(Arc::new(given)),
            Ok(Answer::Refused { error }) => Err(TritonError::Refused(error)),
            Err(error) => Err(error),
        };
        compiled.insert(line, result.clone());
        result
    }
}

struct Worker {
    python: String,
    process: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    fn start(python: OsString) -> Result<Self, TritonError> {
        let name = python.to_string_lossy().into_owned();
        let failed = |reason: String| TritonError::Start { python: name.clone(), reason };
        let mut process = Command::new(&python)
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let requests = process.stdin.take();
        let answers = process.stdout.take().ok_or_else(|| failed("it has no output".to_owned()))?;
        Ok(Worker { python: name, process, requests, answers: BufReader::new(answers) })
    }

    fn ask<T: DeserializeOwned>(&mut self, line: &str) -> Result<Answer<T>, TritonError> {
        let written = match &mut self.requests {
            Some(requests) => writeln!(requests, "{line}").and_then(|()| requests.flush()),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        written.map_err(|error| self.ended(error))?;
        self.read()
    }

    fn read<T: DeserializeOwned>(&mut self) -> Result<Answer<T>, TritonError> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(0) => Err(self.ended(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => serde_json::from_str(&line).map_err(|error| self.ended(error.into())),
            Err(error) => Err(self.ended(error)),
        }
    }

    fn ended(&mut self, error: io::Error) -> TritonError {
        self.requests = None;
        let reason = self.process.wait().map_or_else(|_| error.to_string(), |status| format!("{error}; {status}"));
        TritonError::Ended { python: self.python.clone(), reason }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The end of its input ends it.
        self.requests = None;
        let _ = self.process.wait();
    }
}
