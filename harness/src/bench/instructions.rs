//! Instructions of a call, counted by valgrind's callgrind: the same number on a noisy machine as on a quiet one.
//!
//! valgrind has no AVX-512: kernels that choose by what the processor offers run their AVX2 code in it.

use std::io::Write;
use std::process::{Command, Stdio};

use super::workload::Workload;
use crate::campaign::Entry;
use crate::case::outline;
use crate::run::{Origin, call_text, worker};

/// Calls in the second count, beyond the one of the first.
const CALLS: u64 = 2;

/// Instructions per element of the main output, with one thread, on the workload's [`Workload::sample`]: what further calls
/// add to the count of a process that makes one.
///
/// # Errors
/// Why they were not counted; that valgrind is not installed, for one.
pub fn per_element(entry: &Entry, workload: &Workload) -> Result<f64, String> {
    let mut case = workload.sample();
    case.threads = 1;
    let request = outline(&case);
    let elements = request.outputs.first().map_or(1, |output| output.len()).max(1);
    let text = call_text(&request).map_err(|error| error.to_string())?;
    let counts = [1, 1 + CALLS].map(|calls| count(entry, calls, &text));
    let [one, more] = counts;
    let (one, more) = (one?, more?);
    Ok(more.saturating_sub(one) as f64 / (CALLS * elements as u64) as f64)
}

fn count(entry: &Entry, calls: u64, request: &str) -> Result<u64, String> {
    let program = worker().map_err(|error| error.to_string())?;
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program);
    command.args(["--calls", &calls.to_string(), &entry.name]);
    if let Origin::File { path, .. } = entry.contender.origin() {
        command.arg(path);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot start valgrind: {error}; is it installed?"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A child that ended early does not read: what it says is read below.
        let _ = stdin.write_all(request.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or_default();
    if !output.status.success() {
        return Err(format!("valgrind or the kernel failed: {last}"));
    }
    collected(&said).ok_or_else(|| format!("valgrind said no count: {last}"))
}

/// The number in callgrind's line `==1234== Collected : 5678`.
fn collected(said: &str) -> Option<u64> {
    let line = said.lines().find_map(|line| line.split_once("Collected :"))?.1;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read() {
        assert_eq!(collected("==7== Events    : Ir\n==7== Collected : 173\n==7==\n"), Some(173));
        assert_eq!(collected("valgrind: no such tool"), None);
    }
}
