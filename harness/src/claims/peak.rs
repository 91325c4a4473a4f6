//! Memory as the system counts it: a process of its own runs a program once, and says how much it had at most.
//!
//! The count is the high-water mark of resident memory (`VmHWM`), set back just before the program runs (Linux: 5 to
//! `/proc/self/clear_refs`), less what was resident then, plus the data themselves: what is added by data, not by libraries and
//! parameters. What is freed goes back to the system at once.

use std::fs;
use std::process::Command;

use isonorm_oracles::claims::{Claim, Shape};
use tch::{Device, Kind};

use super::network::{Network, Shared, Way};
use super::{dimensions, shared};
use crate::bench::memory::return_freed_blocks;
use crate::bench::paired::Rounds;

/// Processes for each program: what they say hardly differs.
const ROUNDS: usize = 3;

/// Which program of a claim, in which size: places in its lists.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The comparison.
    pub comparison: usize,
    /// The size.
    pub shape: usize,
    /// The program.
    pub program: usize,
}

/// Bytes at the peak of every program, process by process; `programs` in turns.
///
/// # Errors
/// If a process does not run, or does not say.
pub fn rounds(claim: &Claim, programs: &[Place], seed: u64, threads: usize) -> Result<Rounds, String> {
    let command =
        std::env::current_exe().map_err(|error| format!("this program does not know where it is: {error}"))?;
    let mut rounds = Rounds { seconds: vec![Vec::new(); programs.len()], faults: vec![0; programs.len()] };
    for _ in 0..ROUNDS {
        for (place, found) in programs.iter().zip(&mut rounds.seconds) {
            let Place { comparison, shape, program } = place;
            let output = Command::new(&command)
                .args(["claims", claim.name, "--peak-of", &format!("{comparison},{shape},{program}")])
                .args(["--seed", &seed.to_string(), "--threads", &threads.to_string()])
                .output()
                .map_err(|error| format!("cannot start {}: {error}", command.display()))?;
            let said = String::from_utf8_lossy(&output.stdout).trim().parse::<f64>();
            let why = String::from_utf8_lossy(&output.stderr);
            found.push(said.map_err(|_| format!("a process that measures memory failed: {}", why.trim()))?);
        }
    }
    Ok(rounds)
}

/// Runs one program in this process: bytes at the peak.
///
/// # Errors
/// If there is no such program, if it does not run, or if the system does not count.
pub fn here(claim: &Claim, place: Place, seed: u64, threads: usize) -> Result<u64, String> {
    let missing = || format!("{} has no program {place:?}", claim.name);
    let comparison = claim.comparisons.get(place.comparison).ok_or_else(missing)?;
    let shape = *comparison.shapes.get(place.shape).ok_or_else(missing)?;
    let program = comparison.programs.get(place.program).ok_or_else(missing)?;
    tch::set_num_threads(threads as i32);
    return_freed_blocks();
    let way = Way { pass: comparison.pass, kind: Kind::Float, threads, device: Device::Cpu };
    let make = |shape: Shape| -> Result<Network, String> {
        // Nothing shared: data in f64 are twice as large, and go at once.
        let shared: Shared = shared(seed);
        let made = Network::new((program.parts)(shape), &dimensions(shape), &shared, way);
        made.map_err(|trouble| trouble.to_string())
    };
    // Libraries allocate at first use.
    make(Shape { batch: 1, tokens: 49, ..shape })?.run().map_err(|trouble| trouble.to_string())?;
    let mut network = make(shape)?;
    network.detach();
    // What is folded into parameters is there after a first run.
    drop(network.run().map_err(|trouble| trouble.to_string())?);
    return_freed_blocks();
    let data = (shape.batch * shape.tokens * shape.width * size_of::<f32>()) as u64;
    fs::write("/proc/self/clear_refs", "5").map_err(|error| format!("the system does not count anew: {error}"))?;
    let before = status("VmRSS:")?;
    let results = network.run().map_err(|trouble| trouble.to_string())?;
    let peak = status("VmHWM:")?;
    drop(results);
    Ok(peak.saturating_sub(before) + data)
}

/// Bytes that the system counts of this process.
fn status(what: &str) -> Result<u64, String> {
    let text =
        fs::read_to_string("/proc/self/status").map_err(|error| format!("the system does not count: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(what));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib << 10).ok_or_else(|| format!("the system does not count {what}"))
}
