//! A warp: lanes with registers and a program counter each. Lanes at the lowest counter run together, so that those that
//! went different ways meet again; a lane that waits is left out.

use std::{cell::Cell, ops::Range};

use crate::{
    check::finding::Kind,
    execute::{
        group::{Context, Group},
        space::{FUNCTION_LOCAL, LOCAL_START},
    },
    program::{Lanes, Op, Piece, Slot, WARP},
};

/// Instructions that a warp runs before another has its turn, so that no warp waits for a spinning one for ever.
const SLICE: u64 = 4096;

/// What registers hold that nobody wrote: a NaN of f32, f16 and bf16.
const UNWRITTEN: u64 = 0x7fc0_7fc0;

/// Banks of registers that a core keeps.
const MOST_SPARE: usize = 128;

thread_local! {
    /// Registers of earlier launches: memory that is new to the process is slow at first touch, which small launches feel.
    static SPARE: Cell<Vec<Vec<Lanes>>> = const { Cell::new(Vec::new()) };
}

/// What a lane waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    Collective,
    /// The barrier of this number.
    Barrier(u64),
    /// The end of this phase of the cluster's barrier.
    Cluster(u64),
    /// A phase of the mbarrier of a block at an offset.
    Mbarrier(usize, u64),
}

/// The state of 32 lanes.
#[derive(Default)]
pub(crate) struct Warp {
    /// Its block in the group, and the first lane's number among the group's threads.
    pub block: usize,
    pub first: usize,
    banks: [Vec<Lanes>; 2],
    pub pc: [u32; WARP],
    pub wait: [Option<Wait>; WARP],
    /// Lanes that have threads, that have ended, that wait.
    pub exists: u32,
    pub exited: u32,
    pub blocked: u32,
    /// Return addresses: the calls' numbers.
    stacks: Vec<Vec<u32>>,
    /// Every lane's own bytes: the kernel's, then the device functions'.
    local: [Vec<u8>; 2],
    /// Instructions that the warp has run.
    steps: u64,
    /// Lanes at a higher counter have their turn.
    rotate: bool,
    last: u32,
    /// Arrivals at the cluster's barrier that no wait has followed, by lane: the phase.
    pub cluster_phase: [Option<u64>; WARP],
    /// The mbarrier's phase that a lane has asked for last, in vain.
    pub asked: [Option<(usize, u64, u64)>; WARP],
}

/// The lanes of a mask.
pub(crate) fn lanes(mut mask: u32) -> impl Iterator<Item = usize> + Clone {
    std::iter::from_fn(move || {
        let lane = mask.trailing_zeros();
        (mask != 0).then(|| {
            mask &= mask - 1;
            lane as usize
        })
    })
}

impl Warp {
    pub fn new(context: &Context) -> Self {
        let program = context.program;
        let local = [context.kernel.local_bytes - LOCAL_START, program.function_bytes.saturating_sub(FUNCTION_LOCAL)];
        Self {
            banks: [context.kernel.registers, program.function_registers].map(|n| {
                let mut bank = SPARE.take();
                let mut registers = bank.pop().unwrap_or_default();
                SPARE.set(bank);
                registers.resize(n, [UNWRITTEN; WARP]);
                registers
            }),
            local: local.map(|bytes| vec![0xff; bytes as usize * WARP]),
            stacks: vec![Vec::new(); WARP],
            ..Self::default()
        }
    }

    /// Leaves the registers to the next launch.
    pub fn give_back(&mut self) {
        let mut spare = SPARE.take();
        if spare.len() < MOST_SPARE {
            spare.extend(std::mem::take(&mut self.banks));
        }
        SPARE.set(spare);
    }

    /// Starts the warp `index` of a block of `threads` threads.
    pub fn reset(
        &mut self,
        context: &Context,
        block: usize,
        per_block: usize,
        index: usize,
        special: &[u64],
        threads: u32,
    ) {
        self.block = block;
        self.first = (block * per_block + index) * WARP;
        self.pc = [context.kernel.start; WARP];
        self.wait = [None; WARP];
        let here = (threads as usize - index * WARP).min(WARP);
        self.exists = u32::MAX >> (WARP - here);
        (self.exited, self.blocked, self.steps, self.rotate, self.last) = (0, 0, 0, false, 0);
        self.stacks.iter_mut().for_each(Vec::clear);
        self.cluster_phase = [None; WARP];
        self.asked = [None; WARP];
        let [x, y, _] = context.launch.block.map(|e| e as usize);
        // The same for every block, whichever ran on these registers before.
        self.banks.iter_mut().for_each(|bank| bank.fill([UNWRITTEN; WARP]));
        for (register, value) in self.banks[0].iter_mut().zip(special) {
            *register = [*value; WARP];
        }
        for lane in 0..WARP {
            let t = index * WARP + lane;
            let (below, bit) = ((1u64 << lane) - 1, 1u64 << lane);
            let own = [t % x, t / x % y, t / x / y].map(|v| v as u64);
            own.iter().enumerate().for_each(|(i, v)| self.banks[0][i][lane] = *v);
            let upto = below | bit;
            let masks = [bit, upto, below, !below & 0xffff_ffff, !upto & 0xffff_ffff];
            masks.iter().enumerate().for_each(|(i, v)| self.banks[0][15 + i][lane] = *v);
            self.banks[0][12][lane] = lane as u64;
            self.banks[0][13][lane] = index as u64;
        }
    }

    /// Lanes whose threads have not ended.
    pub fn live(&self) -> u32 {
        self.exists & !self.exited
    }

    /// Lanes that can run.
    pub fn ready(&self) -> u32 {
        self.live() & !self.blocked
    }

    /// Lanes that wait.
    pub fn waiting(&self) -> u32 {
        self.live() & self.blocked
    }

    pub fn block_lanes(&mut self, mask: u32, wait: Wait) {
        self.blocked |= mask;
        lanes(mask).for_each(|l| self.wait[l] = Some(wait));
    }

    pub fn wake(&mut self, mask: u32) {
        self.blocked &= !mask;
        lanes(mask).for_each(|l| self.wait[l] = None);
    }

    pub fn get<'r>(&'r self, slot: Slot, constants: &'r [Lanes]) -> &'r Lanes {
        match slot.bank() {
            Slot::CONSTANT => &constants[slot.index()],
            bank => &self.banks[bank as usize][slot.index()],
        }
    }

    /// Sets a register in the lanes of a mask.
    pub fn set(&mut self, slot: Slot, mask: u32, values: &Lanes) {
        let register = &mut self.banks[slot.bank() as usize][slot.index()];
        if mask == u32::MAX {
            *register = *values;
        } else {
            lanes(mask).for_each(|l| register[l] = values[l]);
        }
    }

    /// Where `bytes` of a lane's own memory lie.
    pub fn local_range(&self, lane: usize, address: u64, bytes: u64) -> Option<(usize, Range<usize>)> {
        let (bank, at) = match address {
            a if a >= FUNCTION_LOCAL => (1, a - FUNCTION_LOCAL),
            a => (0, a.checked_sub(LOCAL_START)?),
        };
        let size = (self.local[bank].len() / WARP) as u64;
        let end = at.checked_add(bytes).filter(|end| *end <= size)?;
        let start = lane as u64 * size;
        Some((bank, (start + at) as usize..(start + end) as usize))
    }

    pub fn local(&mut self, bank: usize, range: Range<usize>) -> &mut [u8] {
        &mut self.local[bank][range]
    }

    pub fn local_bytes(&self, bank: usize, range: Range<usize>) -> &[u8] {
        &self.local[bank][range]
    }

    fn copy(&mut self, lane: usize, pieces: &[Piece]) {
        for piece in pieces {
            let (from, to) =
                (self.local_range(lane, piece.from, piece.bytes), self.local_range(lane, piece.to, piece.bytes));
            let (Some((a, from)), Some((b, to))) = (from, to) else { continue };
            let bytes = self.local[a][from].to_vec();
            self.local[b][to].copy_from_slice(&bytes);
        }
    }

    /// The lanes to run, their counter, and the counter where others may join them.
    fn choose(&mut self) -> (u32, u32, u32) {
        let ready = self.ready();
        let mut pc = lanes(ready).map(|l| self.pc[l]).min().unwrap_or(0);
        if std::mem::take(&mut self.rotate) {
            let last = self.last;
            pc = lanes(ready).map(|l| self.pc[l]).filter(|p| *p > last).min().unwrap_or(pc);
        }
        let mask = lanes(ready).filter(|l| self.pc[*l] == pc).fold(0, |m, l| m | 1 << l);
        let limit = lanes(ready & !mask).map(|l| self.pc[l]).filter(|p| *p > pc).min().unwrap_or(u32::MAX);
        (mask, pc, limit)
    }

    pub fn set_pc(&mut self, mask: u32, pc: u32) {
        lanes(mask).for_each(|l| self.pc[l] = pc);
    }
}

/// How a run goes on behind an instruction.
pub(crate) enum Next {
    /// With the next one, all lanes.
    Straight,
    /// Counters, waits or ends have changed.
    Choose,
}

impl Group<'_> {
    /// Runs a warp until its lanes wait or have ended, or another should have a turn.
    pub(crate) fn slice(&mut self, warp: &mut Warp) {
        let end = warp.steps + SLICE;
        while warp.ready() != 0 && !self.stopped {
            let (mask, pc, limit) = warp.choose();
            self.straight(warp, mask, pc, limit, end);
            // Others may go on, or a barrier may be full.
            if self.unsettled {
                break;
            }
            if warp.steps >= end {
                (warp.rotate, warp.last) = (true, pc);
                break;
            }
        }
        let limit = self.context.launch.options.instruction_limit;
        if warp.steps > limit && warp.live() != 0 {
            let lane = lanes(warp.live()).next().unwrap_or(0);
            self.find(Kind::InstructionLimit, warp.first + lane, warp.pc[lane], "", || {
                format!("the thread's warp has run {limit} instructions and has not ended")
            });
            self.stopped = true;
        }
    }

    /// Runs lanes at one counter until they part, wait, end, or reach `limit`.
    fn straight(&mut self, warp: &mut Warp, mask: u32, mut pc: u32, limit: u32, end: u64) {
        let (program, first) = (self.context.program, warp.steps);
        let mut run = 0u64;
        loop {
            let inst = &program.code[pc as usize];
            let active = match inst.guard {
                None => mask,
                Some((slot, negated)) => {
                    let p = warp.get(slot, &program.constants);
                    let set = (0..WARP).fold(0u32, |m, l| m | ((p[l] & 1) as u32) << l);
                    mask & if negated { !set } else { set }
                }
            };
            warp.steps += 1;
            run += u64::from(active.count_ones());
            let next = if active == 0 {
                Next::Straight
            } else if let Op::Alu { run, result, second, operands } = &inst.op {
                let mut out = [0; WARP];
                let [a, b, c] = operands.map(|o| warp.get(o, &program.constants));
                run(a, b, c, &mut out);
                if let Some(second) = second {
                    warp.set(*second, active, &out.map(|v| v >> 1));
                    out.iter_mut().for_each(|v| *v &= 1);
                }
                warp.set(*result, active, &out);
                Next::Straight
            } else if let Op::Branch(target) = inst.op {
                if active == mask && target < limit && warp.steps < end {
                    // All go, and meet nobody on the way.
                    pc = target;
                    if lanes(warp.ready() & !mask).all(|l| warp.pc[l] >= limit) {
                        continue;
                    }
                    warp.set_pc(mask, pc);
                    break;
                }
                warp.set_pc(mask, pc + 1);
                warp.set_pc(active, target);
                break;
            } else {
                // The lanes stand at the instruction while it runs; what it lets go on stands behind it.
                warp.set_pc(mask & !active, pc + 1);
                warp.set_pc(active, pc);
                self.step(warp, active, pc)
            };
            match next {
                Next::Straight => pc += 1,
                Next::Choose => break,
            }
            if pc >= limit || warp.steps >= end {
                warp.set_pc(mask, pc);
                break;
            }
        }
        self.counters.instructions += run;
        self.counters.warp_instructions += warp.steps - first;
    }

    /// Runs an instruction that is no arithmetic.
    fn step(&mut self, warp: &mut Warp, active: u32, pc: u32) -> Next {
        let program = self.context.program;
        let constants = &program.constants;
        match &program.code[pc as usize].op {
            Op::Alu { .. } | Op::Branch(_) => unreachable!("run by `straight`"),
            Op::Approximate { function, result, operands: [a, b] } => {
                let mut out = [0; WARP];
                let accuracy = self.context.launch.options.accuracy;
                function.run(warp.get(*a, constants), warp.get(*b, constants), accuracy, &mut out);
                warp.set(*result, active, &out);
            }
            Op::Pack { sources, result, bits } => {
                let mut out = [0; WARP];
                for (i, source) in sources.iter().enumerate() {
                    let piece = warp.get(*source, constants);
                    (0..WARP).for_each(|l| out[l] |= piece[l] << (*bits as usize * i));
                }
                warp.set(*result, active, &out);
            }
            Op::Unpack { source, results, bits } => {
                let whole = *warp.get(*source, constants);
                for (i, result) in results.iter().enumerate() {
                    let Some(result) = result else { continue };
                    warp.set(*result, active, &whole.map(|v| v >> (*bits as usize * i) & (u64::MAX >> (64 - bits))));
                }
            }
            Op::Load { address, bytes, results, extend, strong, ordering } => {
                let form = super::access::Form {
                    bytes: *bytes,
                    count: results.len() as u32,
                    strong: *strong,
                    ordering: *ordering,
                    same: false,
                };
                self.load(warp, active, pc, *address, form, results, *extend);
            }
            Op::Store { address, bytes, sources, strong, ordering } => {
                let form = super::access::Form {
                    bytes: *bytes,
                    count: sources.len() as u32,
                    strong: *strong,
                    ordering: *ordering,
                    same: false,
                };
                self.store(warp, active, pc, *address, form, sources);
            }
            Op::Matrices { address, registers, transposed, store } => {
                self.matrices(warp, active, pc, *address, registers, *transposed, *store);
            }
            Op::Atomic { .. } => self.atomic(warp, active, pc),
            Op::CopyAsync { .. }
            | Op::CommitCopies
            | Op::WaitCopies(_)
            | Op::BulkCopy { .. }
            | Op::BulkCommit
            | Op::BulkWait(_) => {
                self.asynchronous(warp, active, pc);
            }
            Op::Mbarrier { address, action } => return self.mbarrier(warp, active, pc, *address, action),
            Op::Call { target, arguments, .. } => {
                for lane in lanes(active) {
                    warp.copy(lane, arguments);
                    warp.stacks[lane].push(pc);
                }
                warp.set_pc(active, *target);
                return Next::Choose;
            }
            Op::Return => {
                for lane in lanes(active) {
                    let Some(call) = warp.stacks[lane].pop() else { continue };
                    if let Op::Call { results, .. } = &program.code[call as usize].op {
                        warp.copy(lane, results);
                    }
                    warp.pc[lane] = call + 1;
                }
                return Next::Choose;
            }
            Op::Exit => {
                warp.exited |= active;
                self.unsettled = true;
                self.complete_collectives(warp);
                return Next::Choose;
            }
            Op::Trap => {
                self.find(Kind::Trap, warp.first + active.trailing_zeros() as usize, pc, "", || "trap".into());
                self.stopped = true;
                return Next::Choose;
            }
            Op::Collective { .. } => return self.collective(warp, active, pc),
            Op::ActiveMask(result) => warp.set(*result, active, &[active.into(); WARP]),
            Op::Barrier { .. } => return self.barrier(warp, active, pc),
            Op::ClusterArrive { aligned, relaxed } => self.cluster_arrive(warp, active, pc, *aligned, *relaxed),
            Op::ClusterWait => return self.cluster_wait(warp, active, pc),
            Op::MapShared { .. }
            | Op::BlockOfShared { .. }
            | Op::InSpace { .. }
            | Op::ToGeneric { .. }
            | Op::FromGeneric { .. } => {
                self.addresses(warp, active, pc);
            }
            Op::Fence | Op::Nothing => {}
        }
        Next::Straight
    }
}
