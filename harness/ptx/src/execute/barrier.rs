//! Barriers of blocks and clusters: who has arrived, when all are there, and what is reported when they never are.

use crate::{
    check::{clocks::Gathered, finding::Kind},
    execute::{
        group::Group,
        warp::{Next, Wait, Warp, lanes},
    },
    program::{BarrierKind, Op, WARP},
};

/// Lanes of a warp that have arrived at one instruction.
struct Arrival {
    warp: usize,
    mask: u32,
    pc: u32,
    kind: BarrierKind,
    aligned: bool,
    predicates: u32,
    /// Threads that it stands for: those of a complete warp are always 32.
    threads: u64,
}

/// A barrier of a block.
#[derive(Default)]
pub(crate) struct BlockBarrier {
    arrivals: Vec<Arrival>,
    gathered: Gathered,
    /// Threads that it waits for; none for all.
    count: Option<u64>,
}

impl Group<'_> {
    pub(crate) fn barrier(&mut self, warp: &mut Warp, active: u32, pc: u32) -> Next {
        let program = self.context.program;
        let Op::Barrier { kind, aligned, id, count, predicate, .. } = &program.code[pc as usize].op else {
            unreachable!("a barrier")
        };
        let leader = active.trailing_zeros() as usize;
        let thread = warp.first + leader;
        let id = warp.get(*id, &program.constants)[leader];
        let count = count.map(|c| warp.get(c, &program.constants)[leader]);
        let predicates = warp.get(*predicate, &program.constants);
        let predicates = lanes(active).fold(0, |m, l| m | ((predicates[l] & 1) as u32) << l);
        let all = (self.warps_of_block() * WARP) as u64;
        if id > 15 {
            self.find(Kind::BarrierCount, thread, pc, "id", || format!("barrier {id}: there are 0 to 15"));
        }
        if let Some(n) = count
            && (n == 0 || n % WARP as u64 != 0 || n > all)
        {
            self.find(Kind::BarrierCount, thread, pc, "count", || {
                format!("barrier {id} for {n} threads: not a multiple of {WARP} up to the block's {all}")
            });
        }
        let barrier = self.blocks[warp.block].barriers.entry(id).or_default();
        let differs = !barrier.arrivals.is_empty() && barrier.count != count;
        barrier.count = count;
        let (kind, aligned) = (*kind, *aligned);
        let threads = if active == warp.live() { WARP as u64 } else { active.count_ones().into() };
        let warp_number = warp.first / WARP;
        barrier.arrivals.push(Arrival { warp: warp_number, mask: active, pc, kind, aligned, predicates, threads });
        if count.is_some() {
            lanes(active).for_each(|l| self.clocks.release(warp.first + l, &mut barrier.gathered));
        }
        if differs {
            self.find(Kind::BarrierCount, thread, pc, "differs", || format!("barrier {id} with different counts"));
        }
        self.unsettled = true;
        warp.set_pc(active, pc + 1);
        if kind != BarrierKind::Arrive {
            warp.block_lanes(active, Wait::Barrier(id));
        }
        Next::Choose
    }

    /// Completes the barriers at which all have arrived.
    pub(crate) fn settle(&mut self) {
        for block in 0..self.blocks.len() {
            let mut ids: Vec<u64> = self.blocks[block].barriers.keys().copied().collect();
            ids.sort_unstable();
            for id in ids {
                if self.full(block, id) {
                    self.open(block, id);
                }
            }
        }
        self.settle_cluster();
        self.wake_mbarriers();
    }

    fn full(&self, block: usize, id: u64) -> bool {
        let barrier = &self.blocks[block].barriers[&id];
        if barrier.arrivals.is_empty() {
            return false;
        }
        let per_block = self.warps_of_block();
        let mut arrived = 0;
        for index in block * per_block..(block + 1) * per_block {
            let here = || barrier.arrivals.iter().filter(|a| a.warp == index);
            let waits = || here().filter(|a| a.kind != BarrierKind::Arrive);
            let live = self.warps[index].live();
            let mask = waits().fold(0, |m, a| m | a.mask);
            if barrier.count.is_none() && mask & live != live {
                return false;
            }
            // A warp may arrive again and again, but waits once, with all its lanes if the barrier is aligned.
            arrived += here().filter(|a| a.kind == BarrierKind::Arrive).map(|a| a.threads).sum::<u64>();
            arrived += match waits().next() {
                None => 0,
                Some(_) if mask & live == live => WARP as u64,
                Some(a) if a.aligned => 0,
                Some(_) => u64::from(mask.count_ones()),
            };
        }
        barrier.count.is_none_or(|count| arrived >= count)
    }

    /// Lets the threads of a full barrier go on.
    fn open(&mut self, block: usize, id: u64) {
        let Some(mut barrier) = self.blocks[block].barriers.remove(&id) else { return };
        self.counters.barriers += 1;
        self.check_alignment(&barrier, id);
        let all = barrier.count.is_some().then(|| self.clocks.finish(&mut barrier.gathered));
        if all.is_none() {
            self.clocks.meet_block(block);
        }
        let count: u32 = barrier.arrivals.iter().map(|a| a.predicates.count_ones()).sum();
        let threads: u32 = barrier.arrivals.iter().map(|a| a.mask.count_ones()).sum();
        for arrival in barrier.arrivals {
            if arrival.kind == BarrierKind::Arrive {
                continue;
            }
            if let Some(all) = &all {
                lanes(arrival.mask).for_each(|l| self.clocks.acquire(arrival.warp * WARP + l, all));
            }
            let warp = &mut self.warps[arrival.warp];
            if let Op::Barrier { result: Some(result), .. } = self.context.program.code[arrival.pc as usize].op {
                let value = match arrival.kind {
                    BarrierKind::Count => count,
                    BarrierKind::And => (count == threads).into(),
                    _ => (count > 0).into(),
                };
                warp.set(result, arrival.mask, &[value.into(); WARP]);
            }
            warp.wake(arrival.mask);
        }
    }

    /// All lanes of a warp have to execute the same aligned barrier instruction together.
    fn check_alignment(&mut self, barrier: &BlockBarrier, id: u64) {
        for (i, arrival) in
            barrier.arrivals.iter().enumerate().filter(|(_, a)| a.aligned && a.kind != BarrierKind::Arrive)
        {
            let thread = arrival.warp * WARP + arrival.mask.trailing_zeros() as usize;
            let other = barrier.arrivals[..i]
                .iter()
                .find(|a| a.warp == arrival.warp && a.pc != arrival.pc && a.kind != BarrierKind::Arrive);
            if let Some(other) = other {
                let line = self.line(other.pc);
                self.find(Kind::DivergentBarrier, thread, arrival.pc, "pc", || {
                    format!("barrier {id}: other lanes of the warp are at the barrier of PTX line {line}")
                });
            }
            let gone = self.warps[arrival.warp].exited;
            if gone != 0 {
                self.find(Kind::DivergentBarrier, thread, arrival.pc, "exited", || {
                    format!("barrier {id}: {} threads of the warp have ended without it", gone.count_ones())
                });
            }
        }
        if let (None, Some(arrival)) = (barrier.count, barrier.arrivals.first()) {
            let (per_block, first) = (self.warps_of_block(), &self.warps[arrival.warp]);
            let block = first.block;
            let warps = &self.warps[block * per_block..(block + 1) * per_block];
            let gone: u32 = warps.iter().map(|w| w.exited.count_ones()).sum();
            let thread = arrival.warp * WARP + arrival.mask.trailing_zeros() as usize;
            if gone != 0 && first.exited == 0 {
                self.find(Kind::DivergentBarrier, thread, arrival.pc, "exited", || {
                    format!("barrier {id} for all threads of the block, of which {gone} have ended")
                });
            }
        }
    }

    pub(crate) fn cluster_arrive(&mut self, warp: &mut Warp, active: u32, pc: u32, aligned: bool, relaxed: bool) {
        let leader = warp.first + active.trailing_zeros() as usize;
        if aligned && active != warp.exists {
            self.find(Kind::DivergentBarrier, leader, pc, "", || {
                format!("cluster barrier: {} of the warp's threads are elsewhere", (warp.exists & !active).count_ones())
            });
        }
        for lane in lanes(active) {
            if warp.cluster_phase[lane].replace(self.cluster.phase).is_some() {
                self.find(Kind::DivergentBarrier, warp.first + lane, pc, "twice", || {
                    "second arrival at the cluster barrier with no wait between".into()
                });
            }
            if !relaxed {
                self.clocks.release(warp.first + lane, &mut self.cluster.gathered);
            }
        }
        self.unsettled = true;
    }

    pub(crate) fn cluster_wait(&mut self, warp: &mut Warp, active: u32, pc: u32) -> Next {
        for lane in lanes(active) {
            warp.pc[lane] = pc + 1;
            match warp.cluster_phase[lane] {
                None => self.find(Kind::DivergentBarrier, warp.first + lane, pc, "", || {
                    "wait at the cluster barrier without an arrival".into()
                }),
                Some(phase) if phase < self.cluster.phase => {
                    warp.cluster_phase[lane] = None;
                    if let Some(all) = &self.cluster.complete {
                        self.clocks.acquire(warp.first + lane, all);
                    }
                }
                Some(phase) => warp.block_lanes(1 << lane, Wait::Cluster(phase)),
            }
        }
        self.unsettled = true;
        Next::Choose
    }

    fn settle_cluster(&mut self) {
        let phase = self.cluster.phase;
        let here = |w: &Warp| lanes(w.live()).all(|l| w.cluster_phase[l] == Some(phase));
        if !self.warps.iter().all(here) || self.warps.iter().all(|w| w.live() == 0) {
            return;
        }
        self.counters.barriers += 1;
        self.cluster.phase += 1;
        let all = self.clocks.finish(&mut self.cluster.gathered);
        for index in 0..self.warps.len() {
            for lane in lanes(self.warps[index].waiting()) {
                let warp = &mut self.warps[index];
                if warp.wait[lane] == Some(Wait::Cluster(phase)) {
                    warp.wake(1 << lane);
                    warp.cluster_phase[lane] = None;
                    self.clocks.acquire(index * WARP + lane, &all);
                }
            }
        }
        self.cluster.complete = Some(all);
    }

    /// Nobody can go on: says who waits for what.
    pub(crate) fn deadlock(&mut self) {
        for index in 0..self.warps.len() {
            let mut rest = self.warps[index].waiting();
            while rest != 0 {
                let lane = rest.trailing_zeros() as usize;
                let warp = &self.warps[index];
                let wait = warp.wait[lane];
                let same = lanes(rest).filter(|l| warp.wait[*l] == wait && warp.pc[*l] == warp.pc[lane]);
                let mask = same.fold(0u32, |m, l| m | 1 << l);
                rest &= !mask;
                let (block, exists) = (warp.block, warp.exists);
                // Barriers have set the counter behind them already.
                let behind = matches!(wait, Some(Wait::Barrier(_) | Wait::Cluster(_)));
                let pc = warp.pc[lane] - u32::from(behind);
                let mut kind = Kind::Deadlock;
                let message = match wait {
                    Some(Wait::Barrier(id)) => {
                        let barrier = &self.blocks[block].barriers[&id];
                        let arrived: u32 = barrier.arrivals.iter().map(|a| a.mask.count_ones()).sum();
                        let aligned = barrier.arrivals.iter().any(|a| a.aligned && a.pc == pc);
                        if aligned && mask != exists {
                            kind = Kind::DivergentBarrier;
                        }
                        let all = self.context.launch.block.iter().product::<u32>();
                        let wanted = barrier.count.unwrap_or(all.into());
                        format!(
                            "deadlock at barrier {id}: {arrived} of {wanted} threads have arrived, {} of this warp",
                            mask.count_ones()
                        )
                    }
                    Some(Wait::Cluster(_)) => {
                        "deadlock at the cluster barrier, at which some threads never arrive".into()
                    }
                    Some(Wait::Collective) => {
                        kind = Kind::WrongMask;
                        format!("deadlock: lanes {mask:#010x} wait for others of their mask that never come")
                    }
                    Some(Wait::Mbarrier(rank, at)) => {
                        format!("deadlock: a phase of the mbarrier at {at:#x} of block {rank} never completes")
                    }
                    None => "deadlock".into(),
                };
                self.find(kind, index * WARP + lane, pc, "deadlock", || message);
            }
        }
    }
}
