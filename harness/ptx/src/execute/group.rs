//! A cluster's blocks (mostly one), stepped together: their warps in turn, until all threads have ended or none can go on.

use std::{collections::HashMap, rc::Rc};

use crate::{
    check::{
        blocks::Blocks,
        clocks::{Clocks, Gathered},
        finding::{Findings, Kind, Spot},
        shadow::Shadow,
    },
    counters::{BufferCounters, Counters},
    execute::{
        barrier::BlockBarrier, copy::Copies, mbarrier::MbarrierState, place::Place, space::SHARED_START, warp::Warp,
    },
    launch::Launch,
    memory::Storage,
    program::{Kernel, Program, SPECIAL, WARP},
};

/// Mistakes after which a cluster is stopped.
const MOST_FINDINGS: u64 = 100_000;

/// What all groups of a launch share.
pub(crate) struct Context<'a> {
    pub program: &'a Program,
    pub kernel: &'a Kernel,
    pub launch: &'a Launch,
    pub params: &'a [u8],
    /// The launch's buffers and, last, the module's variables.
    pub buffers: Vec<&'a Storage>,
    /// For each buffer that may be written.
    pub blocks: Vec<Option<Blocks>>,
    /// Warps run the last first.
    pub reverse: bool,
}

/// A block of the group.
#[derive(Default)]
pub(crate) struct Block {
    /// Its number in the grid.
    pub number: u64,
    /// From the start of the shared window on.
    pub shared: Vec<u8>,
    pub shadow: Shadow,
    pub barriers: HashMap<u64, BlockBarrier>,
}

/// A cluster barrier's phase.
#[derive(Default)]
pub(crate) struct ClusterBarrier {
    pub gathered: Gathered,
    /// What the phase before handed over.
    pub complete: Option<Rc<Vec<u32>>>,
    pub phase: u64,
}

/// The state of one cluster that runs.
pub(crate) struct Group<'a> {
    pub context: &'a Context<'a>,
    pub blocks: Vec<Block>,
    pub warps: Vec<Warp>,
    pub clocks: Clocks,
    pub cluster: ClusterBarrier,
    /// By block of the group and offset.
    pub mbarriers: HashMap<(usize, u64), MbarrierState>,
    /// Copies of threads that were not awaited yet, by thread of the group.
    pub copies: HashMap<usize, Copies>,
    /// What release operations on a place have handed over, for acquire operations on it.
    pub handed_over: HashMap<Place, Gathered>,
    /// Accesses of this group to buffers that may be written.
    pub global_shadows: Vec<Shadow>,
    pub buffer_counters: Vec<BufferCounters>,
    pub counters: Counters,
    pub findings: Findings,
    /// Mistakes of this cluster.
    found: u64,
    /// Nothing of this group makes sense any more.
    pub stopped: bool,
    /// Whether barriers have to be looked at.
    pub unsettled: bool,
    /// The mbarriers whose waiting lanes may go on.
    pub woken: Vec<(usize, u64)>,
}

impl<'a> Group<'a> {
    pub fn new(context: &'a Context<'a>) -> Self {
        let blocks = context.launch.cluster.iter().product::<u32>() as usize;
        let threads = context.launch.block.iter().product::<u32>() as usize;
        let warps = threads.div_ceil(WARP) * blocks;
        Self {
            context,
            blocks: (0..blocks).map(|_| Block::default()).collect(),
            warps: (0..warps).map(|_| Warp::new(context)).collect(),
            clocks: Clocks::default(),
            cluster: ClusterBarrier::default(),
            mbarriers: HashMap::new(),
            copies: HashMap::new(),
            handed_over: HashMap::new(),
            global_shadows: context.buffers.iter().map(|_| Shadow::default()).collect(),
            buffer_counters: vec![BufferCounters::default(); context.buffers.len()],
            counters: Counters::default(),
            findings: Findings::default(),
            found: 0,
            stopped: false,
            unsettled: false,
            woken: Vec::new(),
        }
    }

    /// What was found and counted in all groups so far.
    pub fn finish(mut self) -> (Findings, Counters) {
        for (buffer, counters) in self.context.buffers.iter().zip(&self.buffer_counters) {
            if counters.accesses + counters.atomics > 0 {
                self.counters.buffers.entry(buffer.name.clone()).or_default().merge(counters);
            }
        }
        self.warps.iter_mut().for_each(Warp::give_back);
        (self.findings, self.counters)
    }

    /// Warps of a block.
    pub fn warps_of_block(&self) -> usize {
        self.warps.len() / self.blocks.len()
    }

    /// Runs the cluster of this number to its end.
    pub fn run(&mut self, number: u64) {
        self.reset(number);
        let count = self.warps.len();
        loop {
            let mut progress = false;
            for i in 0..count {
                let i = if self.context.reverse { count - 1 - i } else { i };
                if self.warps[i].ready() == 0 {
                    continue;
                }
                progress = true;
                let mut warp = std::mem::take(&mut self.warps[i]);
                self.slice(&mut warp);
                self.warps[i] = warp;
                if self.unsettled {
                    self.unsettled = false;
                    self.settle();
                }
                if self.stopped {
                    return;
                }
            }
            if !progress {
                if self.warps.iter().all(|w| w.waiting() == 0) {
                    break;
                }
                if !self.complete_bulk_copies() {
                    self.deadlock();
                    break;
                }
            }
        }
        self.finish_copies();
        self.check_ends();
    }

    /// A block's shared memory is gone when its threads have ended: who uses it from another block has to be waited for.
    fn check_ends(&mut self) {
        if self.blocks.len() == 1 {
            return;
        }
        let threads = self.warps_of_block() * WARP;
        for block in 0..self.blocks.len() {
            let known = self.clocks.of_block(block);
            let late = self.blocks[block].shadow.beyond(block * threads..(block + 1) * threads, &known);
            if let Some((thread, pc)) = late {
                let number = self.blocks[block].number;
                self.find(Kind::Race, thread, pc, "end", || {
                    format!("access to shared memory that block {number} may have left: nothing makes it wait")
                });
            }
        }
    }

    fn reset(&mut self, number: u64) {
        let (context, launch) = (self.context, self.context.launch);
        let per_block = self.warps_of_block();
        self.clocks.reset(self.blocks.len(), per_block * WARP);
        self.cluster = ClusterBarrier::default();
        self.mbarriers.clear();
        self.copies.clear();
        self.handed_over.clear();
        self.woken.clear();
        self.found = 0;
        (self.stopped, self.unsettled) = (false, false);
        for (shadow, blocks) in self.global_shadows.iter_mut().zip(&context.blocks) {
            if blocks.is_some() {
                shadow.reset_sparse(context.kernel.global_grain);
            }
        }
        let statics = context.kernel.shared_bytes.max(SHARED_START);
        let dynamic = statics.next_multiple_of(context.kernel.shared_align.max(16));
        let shared = (dynamic + u64::from(launch.shared)) as usize;
        let clusters: [u64; 3] = std::array::from_fn(|i| u64::from(launch.grid[i] / launch.cluster[i]));
        let cluster = [number % clusters[0], number / clusters[0] % clusters[1], number / clusters[0] / clusters[1]];
        let threads: u32 = launch.block.iter().product();
        self.counters.threads += u64::from(threads) * self.blocks.len() as u64;
        for (rank, block) in self.blocks.iter_mut().enumerate() {
            let [cx, cy, _] = launch.cluster.map(u64::from);
            let within = [rank as u64 % cx, rank as u64 / cx % cy, rank as u64 / cx / cy];
            let at: [u64; 3] = std::array::from_fn(|i| cluster[i] * u64::from(launch.cluster[i]) + within[i]);
            block.number = at[0] + u64::from(launch.grid[0]) * (at[1] + u64::from(launch.grid[1]) * at[2]);
            block.shared.clear();
            block.shared.resize(shared, 0xff);
            block.shadow.reset_dense(shared, context.kernel.shared_grain.min(8));
            block.barriers.clear();
            let all = launch.cluster.iter().product::<u32>();
            let mut special: Vec<u64> = vec![0; SPECIAL.len()];
            let mut fill = |at: usize, values: [u64; 3]| special[at..at + 3].copy_from_slice(&values);
            fill(3, launch.block.map(u64::from));
            fill(6, at);
            fill(9, launch.grid.map(u64::from));
            fill(20, cluster);
            fill(23, clusters);
            fill(26, within);
            fill(29, launch.cluster.map(u64::from));
            special[14] = per_block as u64;
            special[32] = rank as u64;
            special[33] = u64::from(all);
            special[34] = u64::from(all > 1);
            special[35] = u64::from(launch.shared);
            special[36] = shared as u64 - SHARED_START;
            special[37] = dynamic;
            for w in 0..per_block {
                self.warps[rank * per_block + w].reset(context, rank, per_block, w, &special, threads);
            }
        }
    }

    /// The block and the thread of a thread of the group.
    pub fn spot(&self, thread: usize, pc: u32) -> Spot {
        let per_block = self.warps_of_block() * WARP;
        Spot { block: self.blocks[thread / per_block].number, thread: Some((thread % per_block) as u32), pc }
    }

    /// The coordinates of a thread of the group, in words.
    pub fn name(&self, thread: usize) -> String {
        let per_block = self.warps_of_block() * WARP;
        let [x, y, _] = self.context.launch.block.map(|e| e as usize);
        let t = thread % per_block;
        let name = format!("({}, {}, {})", t % x, t / x % y, t / x / y);
        if self.blocks.len() > 1 { format!("{name} of block {}", self.blocks[thread / per_block].number) } else { name }
    }

    pub fn line(&self, pc: u32) -> u32 {
        self.context.program.code[pc as usize].line
    }

    /// Notes a mistake. A group that makes very many is stopped: more of the same tells nothing new.
    pub fn find(&mut self, kind: Kind, thread: usize, pc: u32, subject: &str, message: impl FnOnce() -> String) {
        self.found += 1;
        self.stopped |= self.found > MOST_FINDINGS;
        let spot = self.spot(thread, pc);
        self.findings.add(kind, spot, subject, message);
    }
}
