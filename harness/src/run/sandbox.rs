//! Calls of a stranger's kernel, in a process of its own.
//!
//! Each tensor has a region of shared memory for each of the two calls, between inaccessible pages: in the first
//! call it begins where its region begins, in the second it ends where its region ends, so that one element
//! too far on either side ends the process. What lies between the other end and the guard is checked
//! afterwards. Inputs are mapped for reading only.

use isonorm_kernels::abi::raw;

use super::examine::{self, Calls, Poison, Room, Scene, Slot};
use super::process::{Ended, Process};
use super::wire::{Batch, Location, Returned};
use super::{Conduct, Outcome, Request, RunError, Runner};

/// Memory beyond this is given back after a request.
const KEPT: usize = 128 << 20;

/// Starts a process that has the library loaded.
pub(super) type Starter = Box<dyn Fn() -> Result<Process, RunError> + Send>;

/// A kernel in a process of its own.
pub(super) struct SandboxRunner {
    start: Starter,
    /// Position in the library.
    kernel: usize,
    /// Whether it accepts tensors that are aligned to their element type only.
    offset: bool,
    process: Option<Process>,
    halves: [Half; 2],
}

/// The memory of one of the two calls.
#[derive(Default)]
struct Half {
    locations: Vec<Location>,
    slots: Vec<Slot>,
    /// All regions, one after the other: what they shall hold before the call, and what they held after it.
    bytes: Vec<u8>,
}

impl Half {
    fn lay_out(
        &mut self,
        request: &Request,
        process: &mut Process,
        start: impl Fn(usize) -> usize,
    ) -> Result<(), Outcome> {
        self.locations.clear();
        self.slots.clear();
        let mut total = 0;
        for (position, tensor) in request.inputs.iter().chain(&request.outputs).enumerate() {
            if let Some(input) = tensor.alias {
                self.locations.push(self.locations[input].clone());
                self.slots.push(self.slots[input].clone());
                continue;
            }
            let writable = position >= request.inputs.len() || request.is_overwritten(position);
            let mut location = process.take_region(tensor.bytes(), writable).map_err(broken)?;
            location.start = start(location.length - tensor.bytes());
            let data = total + location.start;
            self.slots.push(Slot { region: total..total + location.length, data: data..data + tensor.bytes() });
            total += location.length;
            self.locations.push(location);
        }
        self.bytes.resize(total, 0);
        Ok(())
    }

    fn set_scene(&mut self, process: &Process, contents: &[&[u8]], poison: Poison) {
        examine::set_scene(&mut self.bytes, &self.slots, contents, poison);
        for (location, slot) in self.locations.iter().zip(&self.slots) {
            process.memory(location).write(&self.bytes[slot.region.clone()]);
        }
    }

    fn read_back(&mut self, process: &Process) {
        for (location, slot) in self.locations.iter().zip(&self.slots) {
            process.memory(location).read(&mut self.bytes[slot.region.clone()]);
        }
    }

    fn scene(&self, poison: Poison) -> Scene<'_> {
        Scene { bytes: &self.bytes, slots: &self.slots, poison }
    }
}

impl SandboxRunner {
    pub(super) fn new(start: Starter, kernel: usize, offset: bool) -> Result<Self, RunError> {
        let process = Some(start()?);
        Ok(SandboxRunner { start, kernel, offset, process, halves: Default::default() })
    }

    /// The process, or a new one in its place.
    fn take_process(&mut self) -> Result<Process, Outcome> {
        match self.process.take().filter(|process| !process.is_spent()) {
            Some(process) => Ok(process),
            None => (self.start)().map_err(|error| Outcome::NotRun(error.to_string())),
        }
    }

    /// Has some of the calls made. If the process does not survive it, there is none afterwards.
    fn make_calls(
        &mut self,
        mut process: Process,
        request: &Request,
        halves: &[usize],
    ) -> Result<(Process, Vec<Returned>), Outcome> {
        let calls = halves.iter().map(|&half| self.halves[half].locations.clone()).collect();
        let batch = Batch::new(request, self.kernel, calls);
        match process.exchange(&batch) {
            Ok(reply) => {
                halves.iter().for_each(|&half| self.halves[half].read_back(&process));
                Ok((process, reply.calls))
            }
            Err(Ended::Broken(error)) => Err(broken(error)),
            Err(Ended::Hung(limit)) => Err(Outcome::Hung(limit)),
            Err(Ended::Crashed(mut crash)) => {
                crash.access = process.stray_access(request, &batch.calls);
                if let Some(access) = &crash.access {
                    crash.description = format!("{access}: {}", crash.description);
                }
                Err(Outcome::Crashed(crash))
            }
        }
    }
}

fn broken(error: std::io::Error) -> Outcome {
    Outcome::NotRun(RunError::Sandbox { source: error }.to_string())
}

impl Runner for SandboxRunner {
    fn run(&mut self, request: &Request) -> Outcome {
        let outcome = examine::trial(self, request);
        for half in self.halves.iter_mut().filter(|half| half.bytes.len() > KEPT) {
            half.bytes = Vec::new();
        }
        outcome
    }
}

impl Room for SandboxRunner {
    fn call(&mut self, request: &Request, poison: [Poison; 2], prelude: bool) -> Result<Calls<'_>, Outcome> {
        let mut process = self.take_process()?;
        process.free_regions();
        let offset = self.offset;
        let [first, second] = &mut self.halves;
        first.lay_out(request, &mut process, |_| 0)?;
        second.lay_out(request, &mut process, |end| if offset { end } else { end & !63 })?;
        let contents = request.contents();
        let mut conduct = Vec::new();
        let mut kept = Vec::new();
        if let Some(other) = request.prelude.as_ref().filter(|_| prelude) {
            let other: Vec<&[u8]> = other.iter().map(Vec::as_slice).collect();
            first.set_scene(&process, &other, poison[0]);
            let returned;
            (process, returned) = self.make_calls(process, request, &[0])?;
            self.process = Some(process);
            accept(returned, 1, &mut conduct)?;
            process = self.take_process()?;
            kept = self.halves[0].scene(poison[0]).outputs(request);
        }
        for (half, poison) in self.halves.iter_mut().zip(poison) {
            half.set_scene(&process, &contents, poison);
        }
        let (process, returned) = self.make_calls(process, request, &[0, 1])?;
        self.process = Some(process);
        let seconds = accept(returned, 2, &mut conduct)?;
        let [first, second] = &self.halves;
        let scenes = [first.scene(poison[0]), second.scene(poison[1])];
        Ok(Calls { scenes, prelude: kept, conduct, seconds, work: None })
    }
}

/// Collects what calls did besides answering, and returns the seconds of the first.
fn accept(returned: Vec<Returned>, expected: usize, conduct: &mut Vec<Conduct>) -> Result<f64, Outcome> {
    let mut seconds = None;
    let count = returned.len();
    for call in returned {
        conduct.extend(call.float_change.map(|change| Conduct::ChangedFloatEnvironment { change }));
        if call.threads > 0 {
            conduct.push(Conduct::BackgroundThreads { threads: call.threads, wrote: call.wrote_later });
        }
        match call.status {
            raw::OK => seconds.get_or_insert(call.seconds),
            raw::UNSUPPORTED => return Err(Outcome::Declined(reason(call.message))),
            raw::ERROR => return Err(Outcome::Failed(reason(call.message))),
            other => return Err(Outcome::Failed(format!("returned {other}, which is not a status"))),
        };
    }
    seconds
        .filter(|_| count == expected)
        .ok_or_else(|| Outcome::NotRun("the kernel's process left calls out".to_owned()))
}

fn reason(message: String) -> String {
    if message.is_empty() { "the kernel gives no reason".to_owned() } else { message }
}
