//! Timing on a GPU.
//!
//! All contenders queue their work on one stream, the default one, which is libtorch's too, in placements of their own: each
//! call works on another copy of the tensors. Warm calls are timed by the GPU itself, between two events, and its second-level
//! cache is emptied before each; that this time is the whole of it is checked with the clock, since work that is not on the
//! stream would not be in it. As a user calls them, calls are queued one behind the other, outputs are allocated in each, and
//! the clock decides: that is where the launch itself counts.

use std::cell::RefCell;
use std::sync::OnceLock;
use std::time::Instant;

use isonorm_cuda::driver::{Event, Gpu, GpuError, Memory};
use isonorm_reports::record::Setting;
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use super::kernel::tile_inputs;
use super::libtorch::Libtorch;
use super::paired::{self, Pace};
use super::workload::Workload;
use super::{Cell, Plan, SAMPLE, Timed, Versus, What, bytes, check, records};
use crate::campaign::Entry;
use crate::case::{Materialised, outline};
use crate::run::{OnGpu, Ready, Request, TensorArg};

/// Copies of the tensors, each for another call.
const PLACEMENTS: u64 = 4;
/// Of the cache's size, what is written to empty it.
const EMPTIES: u64 = 2;
/// Seconds that the GPU may go on after its stream is done, and by which part of its time a stream may be behind the clock:
/// waiting takes some time itself.
const LATE: (f64, f64) = (1e-3, 0.05);

/// Measures a workload whose sample was judged, on a GPU; beside libtorch only where [`libtorch_on_gpu`] said that it can be.
///
/// # Errors
/// Why it could not be measured.
pub fn cell(
    entry: &Entry,
    kernel: &OnGpu,
    workload: &Workload,
    sample: &Materialised,
    setting: Setting,
    plan: &Plan,
) -> Result<Cell, String> {
    if plan.slowed > 0.0 {
        return Err("no slowdown can be planted on a GPU".to_owned());
    }
    let gpu = &kernel.gpu().on_default_stream();
    let fresh = setting == Setting::AsCalled;
    let request = outline(&workload.case);
    let tiled = tile_inputs(&request.inputs, sample)?;
    let mut first = KernelCall::new(kernel, gpu, &request, &tiled, fresh)?;
    if !fresh {
        first.call()?;
        let outputs = first.download()?;
        let outputs: Vec<&[u8]> = outputs.iter().map(Vec::as_slice).collect();
        if let Some(wrong) = check::whole(entry, workload, sample, &outputs, &plan.replay) {
            return Ok(Cell::Wrong(Box::new(wrong)));
        }
    }
    // The kernel's tensors, the copy's, libtorch's, and what that makes anew.
    let room = gpu.free().map_err(say)? / (4 * bytes(workload)).max(1);
    let placements = 1..room.clamp(1, PLACEMENTS);
    let mut ours: Vec<Box<dyn Timed + '_>> = vec![Box::new(first)];
    for _ in placements.clone() {
        ours.push(Box::new(KernelCall::new(kernel, gpu, &request, &tiled, fresh)?));
    }
    let half = (bytes(workload) / 2) as usize;
    let copy = || Ok::<_, GpuError>(Copy { gpu, from: gpu.zeros(half)?, to: gpu.zeros(half)? });
    let mut copies: Vec<Box<dyn Timed + '_>> = vec![Box::new(copy().map_err(say)?)];
    for _ in placements.clone() {
        copies.push(Box::new(copy().map_err(say)?));
    }
    let mut libtorch: Vec<Box<dyn Timed + '_>> = Vec::new();
    if plan.versus.contains(&Versus::Libtorch) {
        for _ in std::iter::once(0).chain(placements) {
            let Some(one) = Libtorch::new(workload, sample, tch::Device::Cuda(0))? else { break };
            libtorch.push(Box::new(one));
        }
    }
    let empty = RefCell::new(gpu.zeros((EMPTIES * gpu.l2) as usize).map_err(say)?);
    let sets = [ours, copies, libtorch].into_iter().filter(|placements| !placements.is_empty());
    let mut all: Vec<OnStream<'_>> = sets
        .map(|placements| OnStream { gpu, placements, next: 0, empty: (!fresh).then_some(&empty), events: Vec::new() })
        .collect();
    let mut contenders: Vec<&mut dyn Timed> = all.iter_mut().map(|one| one as &mut dyn Timed).collect();
    let pace = Pace { time: plan.time, sample: SAMPLE, warm: fresh, threads: 1, seed: plan.seed };
    let mut rounds = paired::run(&mut contenders, &pace)?;
    // Those of this process say nothing about the GPU's memory.
    rounds.faults.fill(0);
    Ok(Cell::Timed(records(entry, workload, setting, plan, &rounds)))
}

/// Sees to it that libtorch can use the GPU. Its part for CUDA is opened by its name: this program was linked without.
///
/// # Errors
/// If it cannot, with what to do about it.
pub fn libtorch_on_gpu() -> Result<(), String> {
    static HERE: OnceLock<bool> = OnceLock::new();
    let here = *HERE.get_or_init(|| {
        // SAFETY: the library's constructors register what it offers, as when a program is linked with it.
        let opened = unsafe { Library::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) };
        // It stays: what it registered does.
        opened.map(std::mem::forget).is_ok() && tch::Cuda::is_available()
    });
    let version = isonorm_oracles::LIBTORCH_VERSION;
    here.then_some(()).ok_or_else(|| {
        format!(
            "this libtorch cannot use the GPU: set LIBTORCH to the folder of a torch {version} for CUDA, and start with `cargo \
             isonorm`"
        )
    })
}

fn say(error: GpuError) -> String {
    error.to_string()
}

/// A contender with several placements of its tensors, called in turns.
struct OnStream<'a> {
    gpu: &'a Gpu,
    placements: Vec<Box<dyn Timed + 'a>>,
    next: usize,
    /// What is written before every call; with none, the clock decides.
    empty: Option<&'a RefCell<Memory>>,
    /// Before and behind each call of a sample.
    events: Vec<[Event; 2]>,
}

impl OnStream<'_> {
    fn queue(&mut self, what: What) -> Result<(), String> {
        let count = self.placements.len();
        let placement = &mut self.placements[self.next];
        self.next = (self.next + 1) % count;
        match what {
            What::Call => placement.call(),
            What::Surcharge => placement.surcharge(),
        }
    }
}

impl Timed for OnStream<'_> {
    fn call(&mut self) -> Result<(), String> {
        self.queue(What::Call)
    }

    fn has_surcharge(&self) -> bool {
        self.placements[0].has_surcharge()
    }

    fn surcharge(&mut self) -> Result<(), String> {
        self.queue(What::Surcharge)
    }

    fn time(&mut self, what: What, times: u32) -> Result<f64, String> {
        let gpu = self.gpu;
        gpu.idle().map_err(say)?;
        let started = Instant::now();
        for place in 0..times as usize {
            let Some(empty) = self.empty else {
                self.queue(what)?;
                continue;
            };
            if self.events.len() <= place {
                self.events.push([gpu.event().map_err(say)?, gpu.event().map_err(say)?]);
            }
            gpu.clear(&mut empty.borrow_mut()).map_err(say)?;
            gpu.record(&self.events[place][0]).map_err(say)?;
            self.queue(what)?;
            gpu.record(&self.events[place][1]).map_err(say)?;
        }
        gpu.finish().map_err(say)?;
        let stream = started.elapsed().as_secs_f64();
        gpu.idle().map_err(say)?;
        let clock = started.elapsed().as_secs_f64();
        if self.empty.is_none() {
            return Ok(clock);
        }
        let pairs = self.events[..times as usize].iter();
        let events = pairs.map(|[before, behind]| before.seconds_to(behind)).sum::<Result<f64, _>>().map_err(say)?;
        whole(events, stream, clock).map(|()| events)
    }
}

/// Whether the time between events can be the whole of it: by the clock, the stream was not done earlier than they say, and
/// the GPU no later than the stream.
fn whole(events: f64, stream: f64, clock: f64) -> Result<(), String> {
    let ms = |seconds: f64| format!("{:.3} ms", seconds * 1e3);
    let (late, part) = LATE;
    if clock - stream > late + part * stream {
        let more = ms(clock - stream);
        return Err(format!("the GPU worked for {more} more after its stream was done: not all work was queued there"));
    }
    if events > stream * (1.0 + part) + late {
        return Err(format!("{} between events, but {} on the clock", ms(events), ms(stream)));
    }
    Ok(())
}

/// A kernel with the tensors of a workload, on a GPU.
struct KernelCall<'a> {
    gpu: &'a Gpu,
    ready: Ready,
    inputs: Vec<Memory>,
    outputs: Vec<Memory>,
    /// Bytes of outputs that are allocated in each call; none if they are kept.
    fresh: Option<Vec<usize>>,
}

impl<'a> KernelCall<'a> {
    fn new(
        kernel: &OnGpu,
        gpu: &'a Gpu,
        request: &Request,
        tiled: &[super::memory::Memory],
        fresh: bool,
    ) -> Result<KernelCall<'a>, String> {
        // SAFETY: tiled, and so initialised.
        let upload = |memory: &super::memory::Memory| gpu.upload(unsafe { memory.bytes() });
        let inputs = tiled.iter().map(upload).collect::<Result<Vec<_>, _>>().map_err(say)?;
        let sizes: Vec<usize> = request.outputs.iter().map(TensorArg::bytes).collect();
        let zeros = sizes.iter().map(|&bytes| gpu.zeros(bytes));
        let outputs = zeros.collect::<Result<Vec<_>, _>>().map_err(say)?;
        let addresses: Vec<u64> = inputs.iter().chain(&outputs).map(|memory| gpu.address(memory)).collect();
        let ready =
            kernel.ready(gpu, request, 0, |place| addresses[place]).map_err(|outcome| format!("{outcome:?}"))?;
        Ok(KernelCall { gpu, ready, inputs, outputs, fresh: fresh.then_some(sizes) })
    }

    /// What the last call wrote.
    fn download(&self) -> Result<Vec<Vec<u8>>, String> {
        self.outputs.iter().map(|memory| self.gpu.download(memory)).collect::<Result<_, _>>().map_err(say)
    }
}

impl Timed for KernelCall<'_> {
    fn call(&mut self) -> Result<(), String> {
        let KernelCall { gpu, ready, inputs, outputs, fresh } = self;
        if let Some(sizes) = fresh {
            let all = sizes.iter().map(|&bytes| gpu.untouched(bytes));
            *outputs = all.collect::<Result<_, _>>().map_err(say)?;
            let addresses: Vec<u64> = inputs.iter().chain(&*outputs).map(|memory| gpu.address(memory)).collect();
            ready.place(|place| addresses[place]);
        }
        ready.queue(gpu)
    }
}

/// A copy within the GPU's memory that moves as many bytes as a call must.
struct Copy<'a> {
    gpu: &'a Gpu,
    from: Memory,
    to: Memory,
}

impl Timed for Copy<'_> {
    fn call(&mut self) -> Result<(), String> {
        self.gpu.copy(&self.from, &mut self.to).map_err(say)
    }
}

#[cfg(test)]
mod tests {
    use super::whole;

    #[test]
    fn events_that_agree_with_the_clock() {
        assert_eq!(whole(0.010, 0.020, 0.020), Ok(()));
        assert_eq!(whole(0.010, 0.010, 0.0105), Ok(()));
    }

    #[test]
    fn work_that_is_not_on_the_stream_is_found() {
        let error = whole(0.001, 0.002, 0.010).expect_err("8 ms elsewhere");
        assert!(error.contains("8.000 ms more"), "{error}");
    }

    #[test]
    fn events_that_say_more_than_the_clock_are_found() {
        let error = whole(0.010, 0.002, 0.002).expect_err("an event of another stream");
        assert!(error.contains("10.000 ms between events, but 2.000 ms"), "{error}");
    }
}
