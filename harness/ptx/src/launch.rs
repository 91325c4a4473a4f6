//! Modules, launches and what comes of them.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::{
    check::{
        blocks::Blocks,
        finding::{Finding, Findings, Kind, Source, Spot},
    },
    counters::Counters,
    execute::{
        approximate::{Accuracy, hash},
        group::{Context, Group},
    },
    memory::{Buffer, Memory, Rights, Storage},
    parse::{ParseError, parse},
    program::{Kernel, Program},
};

/// A module: kernels and what they use.
#[derive(Clone)]
pub struct Module {
    pub(crate) program: Program,
}

/// The order in which blocks run, and the warps of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By number.
    Forward,
    /// The last first.
    Reverse,
    /// Shuffled by a seed, warps by number.
    Shuffled(u64),
}

/// How a launch is executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The launch is executed once in each order, from the same memory; the results must agree to the bit. The first
    /// one's result stays. Orders are told apart only if there are several blocks or warps.
    pub orders: Vec<Order>,
    /// Cores to use; 0 for all.
    pub threads: usize,
    /// Instructions that a warp may run.
    pub instruction_limit: u64,
    /// How approximate instructions are evaluated.
    pub accuracy: Accuracy,
    /// Other launches on the same memory follow: outputs need not be complete yet.
    pub more_follows: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            orders: vec![Order::Forward],
            threads: 0,
            instruction_limit: 1 << 22,
            accuracy: Accuracy::Exact,
            more_follows: false,
        }
    }
}

/// A kernel's argument: its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument(Vec<u8>);

macro_rules! arguments {
    ($($t:ty),*) => {$(
        impl From<$t> for Argument {
            fn from(value: $t) -> Self {
                Self(value.to_le_bytes().to_vec())
            }
        }
    )*};
}

arguments!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);

impl Argument {
    /// The address of a buffer.
    pub fn pointer(memory: &Memory, buffer: Buffer) -> Self {
        memory.address(buffer).into()
    }

    /// A null pointer.
    pub fn null() -> Self {
        0u64.into()
    }

    /// A structure passed by value.
    pub fn bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

/// One launch of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The kernel's name, as in the PTX.
    pub kernel: String,
    /// Blocks of the grid.
    pub grid: [u32; 3],
    /// Threads of a block: 1 to 1024.
    pub block: [u32; 3],
    /// Blocks of a cluster, at most 16.
    pub cluster: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// The arguments, in order.
    pub params: Vec<Argument>,
    /// How it is executed.
    pub options: Options,
}

impl Default for Launch {
    fn default() -> Self {
        let one = [1; 3];
        let (kernel, params, options) = (String::new(), Vec::new(), Options::default());
        Self { kernel, grid: one, block: one, cluster: one, shared: 0, params, options }
    }
}

/// What came of a launch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// What it did wrong, by kind and instruction; nothing for a correct kernel.
    pub findings: Vec<Finding>,
    /// What it did, in numbers; those of the first order.
    pub counters: Counters,
}

/// A launch that cannot be executed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// No such kernel.
    #[error("no kernel {name}; the module has {known}")]
    UnknownKernel {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The wrong number of arguments, or one of the wrong size.
    #[error("kernel {kernel}: {message}")]
    Arguments {
        /// The kernel.
        kernel: String,
        /// What is wrong.
        message: String,
    },
    /// Extents that the kernel or a GPU does not take.
    #[error("kernel {kernel}: {message}")]
    Extents {
        /// The kernel.
        kernel: String,
        /// What is wrong.
        message: String,
    },
}

fn volume(extent: [u32; 3]) -> u64 {
    extent.iter().map(|e| u64::from(*e)).product()
}

impl Module {
    /// Reads PTX text.
    ///
    /// # Errors
    /// If the text is no PTX, or has an instruction, a modifier or a directive that is not known: none is guessed.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Ok(Self { program: parse(text)? })
    }

    /// The names of the kernels.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.program.kernels.iter().map(|k| k.name.as_str())
    }

    /// The sizes of a kernel's parameters in bytes; none for an unknown kernel.
    pub fn parameters(&self, kernel: &str) -> Option<Vec<u64>> {
        Some(self.program.kernels.iter().find(|k| k.name == kernel)?.parameters.iter().map(|p| p.bytes).collect())
    }

    /// Executes a launch on `memory`. The module's own variables start from their initial values.
    ///
    /// # Errors
    /// If the launch does not fit the kernel. What the kernel does wrong is no error but a finding.
    pub fn run(&self, launch: &Launch, memory: &mut Memory) -> Result<Outcome, LaunchError> {
        let kernel = self.kernel(launch)?;
        let params = self.check(kernel, launch)?;
        let cores = match launch.options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let orders = if launch.options.orders.is_empty() { &[Order::Forward][..] } else { &launch.options.orders };
        let copies: Vec<Memory> = orders[1..].iter().map(|_| memory.clone()).collect();
        let memories: Vec<&Memory> = std::iter::once(&*memory).chain(&copies).collect();
        let run = |i: usize, cores: usize| self.run_once(kernel, launch, &params, memories[i], orders[i], cores);
        // Atomics make even a single order depend on the cores' pace, unless it has one core to itself.
        let results: Vec<(Findings, Counters)> = if kernel.global_atomics && orders.len() > 1 {
            std::thread::scope(|s| {
                let run = &run;
                let running: Vec<_> = (0..orders.len()).map(|i| s.spawn(move || run(i, 1))).collect();
                running.into_iter().map(|r| r.join().unwrap_or_else(|e| std::panic::resume_unwind(e))).collect()
            })
        } else {
            (0..orders.len()).map(|i| run(i, cores)).collect()
        };
        let mut results = results.into_iter();
        let (mut findings, counters) = results.next().unwrap_or_default();
        results.for_each(|(f, _)| findings.merge(f));
        for (order, other) in orders[1..].iter().zip(&copies) {
            compare(memory, other, *order, &mut findings);
        }
        Ok(Outcome { findings: findings.into_iter().map(|f| self.describe(kernel, launch, f)).collect(), counters })
    }

    fn kernel(&self, launch: &Launch) -> Result<&Kernel, LaunchError> {
        self.program.kernels.iter().find(|k| k.name == launch.kernel).ok_or_else(|| LaunchError::UnknownKernel {
            name: launch.kernel.clone(),
            known: self.kernels().collect::<Vec<_>>().join(", "),
        })
    }

    /// Checks a launch and lays out the arguments.
    fn check(&self, kernel: &Kernel, launch: &Launch) -> Result<Vec<u8>, LaunchError> {
        let name = || kernel.name.clone();
        let refuse = |message: String| Err(LaunchError::Extents { kernel: name(), message });
        let (threads, max) = (volume(launch.block), kernel.max_threads.map_or(1024, volume).min(1024));
        if threads == 0 || threads > max {
            return refuse(format!("{threads} threads a block: 1 to {max} are possible"));
        }
        if kernel.required_threads.is_some_and(|r| r != launch.block) {
            return refuse(format!(
                "the kernel needs blocks of {:?} threads",
                kernel.required_threads.unwrap_or_default()
            ));
        }
        if kernel.required_cluster.is_some_and(|r| r != launch.cluster) {
            return refuse(format!(
                "the kernel needs clusters of {:?} blocks",
                kernel.required_cluster.unwrap_or_default()
            ));
        }
        if !(1..=16).contains(&volume(launch.cluster)) {
            return refuse(format!("{} blocks a cluster: 1 to 16 are possible", volume(launch.cluster)));
        }
        if launch.grid.iter().zip(&launch.cluster).any(|(g, c)| g % c != 0) {
            return refuse(format!("a grid of {:?} is no multiple of clusters of {:?}", launch.grid, launch.cluster));
        }
        if !(1..1 << 30).contains(&volume(launch.grid)) || launch.grid[1] > 65535 || launch.grid[2] > 65535 {
            return refuse(format!("a grid of {:?} blocks", launch.grid));
        }
        // The most that any architecture gives a block.
        let shared = kernel.shared_bytes.saturating_sub(crate::execute::space::SHARED_START) + u64::from(launch.shared);
        if shared > 227 * 1024 {
            return refuse(format!("{shared} bytes of shared memory: at most 232448 are possible"));
        }
        let refuse = |message: String| Err(LaunchError::Arguments { kernel: name(), message });
        if launch.params.len() != kernel.parameters.len() {
            return refuse(format!("{} arguments for {} parameters", launch.params.len(), kernel.parameters.len()));
        }
        let mut bytes = vec![0; kernel.parameter_bytes as usize];
        for (i, (parameter, Argument(argument))) in kernel.parameters.iter().zip(&launch.params).enumerate() {
            if argument.len() as u64 != parameter.bytes {
                return refuse(format!("argument {i} has {} bytes, the parameter {}", argument.len(), parameter.bytes));
            }
            bytes[parameter.offset as usize..][..argument.len()].copy_from_slice(argument);
        }
        Ok(bytes)
    }

    fn run_once(
        &self,
        kernel: &Kernel,
        launch: &Launch,
        params: &[u8],
        memory: &Memory,
        order: Order,
        cores: usize,
    ) -> (Findings, Counters) {
        let globals = Storage::new("(variables)", &self.program.globals, Rights::ReadWrite, 0);
        let blocks = memory.buffers.iter().chain([&globals]).map(|b| {
            (b.rights != Rights::Read).then(|| Blocks::new((b.offset + b.bytes) as usize, kernel.global_grain))
        });
        let context = Context {
            program: &self.program,
            kernel,
            launch,
            params,
            buffers: memory.buffers.iter().chain([&globals]).collect(),
            blocks: blocks.collect(),
            reverse: order == Order::Reverse,
        };
        let groups = volume(launch.grid) / volume(launch.cluster);
        let mut numbers: Vec<u64> = (0..groups).collect();
        match order {
            Order::Forward => {}
            Order::Reverse => numbers.reverse(),
            Order::Shuffled(seed) => numbers.sort_by_key(|n| hash(seed ^ hash(*n))),
        }
        let next = AtomicUsize::new(0);
        let work = || {
            let mut group = Group::new(&context);
            while let Some(number) = numbers.get(next.fetch_add(1, Relaxed)) {
                group.run(*number);
                // Other blocks would take as long, and tell nothing new.
                if group.findings.has(Kind::InstructionLimit) {
                    break;
                }
            }
            group.finish()
        };
        let workers = cores.min(groups as usize).max(1);
        let parts: Vec<(Findings, Counters)> = if workers == 1 {
            vec![work()]
        } else {
            std::thread::scope(|s| {
                let running: Vec<_> = (0..workers).map(|_| s.spawn(work)).collect();
                running.into_iter().map(|r| r.join().unwrap_or_else(|e| std::panic::resume_unwind(e))).collect()
            })
        };
        let (mut findings, mut counters) = (Findings::default(), Counters::default());
        for (f, c) in parts {
            findings.merge(f);
            counters.merge(c);
        }
        for (buffer, blocks) in context.buffers.iter().zip(&context.blocks) {
            let (true, Some(blocks)) = (buffer.rights.starts_unwritten(), blocks) else { continue };
            blocks.written().for_each(|bytes| buffer.mark_written(bytes));
            if buffer.rights == Rights::Scratch || buffer.bytes == 0 || launch.options.more_follows {
                continue;
            }
            let unwritten = blocks.unwritten(buffer.offset, buffer.bytes, |bytes| buffer.was_written(bytes));
            if let Some((first, bytes)) = unwritten {
                let spot = Spot { block: u64::MAX, thread: None, pc: u32::MAX };
                findings.add(Kind::UnwrittenOutput, spot, &buffer.name, || {
                    let at = first.saturating_sub(buffer.offset);
                    format!(
                        "{bytes} of {} bytes of output {} are not written, from byte {at} on",
                        buffer.bytes, buffer.name
                    )
                });
            }
        }
        (findings, counters)
    }

    fn describe(&self, kernel: &Kernel, launch: &Launch, found: (Kind, Spot, String, u64)) -> Finding {
        let (kind, spot, message, count) = found;
        let coordinates = |n: u64, extent: [u32; 3]| {
            let (x, y) = (u64::from(extent[0]), u64::from(extent[1]));
            [(n % x) as u32, (n / x % y) as u32, (n / x / y) as u32]
        };
        let inst = self.program.code.get(spot.pc as usize);
        let location = inst.map(|i| self.program.locations[i.location as usize]).filter(|l| l.line > 0);
        let file = |n: u32| self.program.files.get(&n).cloned().unwrap_or_else(|| format!("file {n}"));
        Finding {
            kind,
            kernel: kernel.name.clone(),
            block: (spot.block != u64::MAX).then(|| coordinates(spot.block, launch.grid)),
            thread: spot.thread.map(|t| coordinates(t.into(), launch.block)),
            line: inst.map_or(0, |i| i.line),
            source: location.map(|l| Source {
                file: file(l.file),
                line: l.line,
                inlined_at: l.inlined.map(|(f, line)| (file(f), line)),
            }),
            message,
            count,
        }
    }
}

/// Reports where another order of the blocks gave other bytes.
fn compare(first: &Memory, other: &Memory, order: Order, findings: &mut Findings) {
    for (a, b) in first.buffers.iter().zip(&other.buffers).filter(|(a, _)| a.rights != Rights::Read) {
        let (x, y) = (a.contents(), b.contents());
        let mut differing = (0..x.len()).filter(|i| x[*i] != y[*i]);
        if let Some(at) = differing.next() {
            let spot = Spot { block: u64::MAX, thread: None, pc: u32::MAX };
            let bytes = differing.count() + 1;
            findings.add(Kind::OrderDependence, spot, &a.name, || {
                format!("{bytes} bytes of {} differ when blocks run in order {order:?}, from byte {at} on", a.name)
            });
        }
    }
}
