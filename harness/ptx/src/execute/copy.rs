//! Asynchronous copies. They read at once and write as late as the waiting threads allow, so that whoever does not wait
//! is seen: until then the memory they fill is in flight.

use crate::{
    check::{blocks::BlockAccess, finding::Kind},
    execute::{
        access::{Form, number},
        group::Group,
        place::Place,
        warp::{Warp, lanes},
    },
    program::{Address, Op, Ordering},
};

/// A copy that has read and not written.
struct Copy {
    to: Place,
    bytes: Vec<u8>,
    pc: u32,
}

/// The copies of a thread: those of closed groups, and those that no group has yet; of `cp.async` and of bulk copies.
#[derive(Default)]
pub(crate) struct Copies {
    groups: Vec<Vec<Copy>>,
    open: Vec<Copy>,
    bulk_groups: Vec<Vec<Copy>>,
    bulk_open: Vec<Copy>,
    /// Bulk copies that an mbarrier awaits: the block and the offset.
    awaited: Vec<((usize, u64), Copy)>,
}

const PLAIN: Form =
    Form { bytes: 1, count: 1, strong: false, ordering: Ordering { acquire: false, release: false }, same: false };

impl Group<'_> {
    pub(crate) fn asynchronous(&mut self, warp: &mut Warp, active: u32, pc: u32) {
        let program = self.context.program;
        match &program.code[pc as usize].op {
            Op::CopyAsync { to, from, bytes, source_bytes, skip } => {
                let width = u64::from(*bytes);
                let taken = source_bytes.map(|s| *warp.get(s, &program.constants));
                let skipped = skip.map(|s| *warp.get(s, &program.constants));
                let mut places = [None; crate::program::WARP];
                for lane in lanes(active) {
                    let mut read = taken.map_or(width, |t| t[lane].min(width));
                    if skipped.is_some_and(|s| s[lane] & 1 == 1) {
                        read = 0;
                    }
                    let Some(target) = self.target(warp, lane, pc, *to, width) else { continue };
                    let mut data = vec![0; width as usize];
                    if read > 0 {
                        // What is read has to exist, but the whole source has to be aligned.
                        let Some(source) = self.target(warp, lane, pc, *from, read) else { continue };
                        if let Place::Buffer(index, at) = source
                            && at % width != 0
                        {
                            let name = &self.context.buffers[index].name;
                            self.find(Kind::Misaligned, warp.first + lane, pc, "", || {
                                format!("asynchronous copy of {width} bytes from byte {at} of {name} is not aligned")
                            });
                            continue;
                        }
                        data[..read as usize].copy_from_slice(&self.fetch(warp, lane, pc, source, read));
                        places[lane] = Some(source);
                    }
                    self.start(warp.first + lane, pc, target, width);
                    let copy = Copy { to: target, bytes: data, pc };
                    self.copies.entry(warp.first + lane).or_default().open.push(copy);
                }
                let form = Form { bytes: *bytes, ..PLAIN };
                self.count(active, &places, form, false);
            }
            Op::CommitCopies => lanes(active).for_each(|l| {
                let copies = self.copies.entry(warp.first + l).or_default();
                let group = std::mem::take(&mut copies.open);
                copies.groups.push(group);
            }),
            Op::WaitCopies(pending) => lanes(active).for_each(|l| self.complete_copies(warp, l, *pending)),
            Op::BulkCopy { to, from, bytes, barrier } => {
                let sizes = *warp.get(*bytes, &program.constants);
                for lane in lanes(active) {
                    self.bulk(warp, lane, pc, (*to, *from, *barrier), sizes[lane]);
                }
            }
            Op::BulkCommit => lanes(active).for_each(|l| {
                let copies = self.copies.entry(warp.first + l).or_default();
                let group = std::mem::take(&mut copies.bulk_open);
                copies.bulk_groups.push(group);
            }),
            Op::BulkWait(pending) => lanes(active).for_each(|l| {
                let thread = warp.first + l;
                let groups = &mut self.copies.entry(thread).or_default().bulk_groups;
                let ended = groups.len().saturating_sub(*pending as usize);
                let ended: Vec<Copy> = groups.drain(..ended).flatten().collect();
                ended.into_iter().for_each(|copy| self.end(thread, copy));
            }),
            _ => {}
        }
    }

    fn target(&mut self, warp: &Warp, lane: usize, pc: u32, address: Address, bytes: u64) -> Option<Place> {
        let base = warp.get(address.base, &self.context.program.constants)[lane];
        self.place(warp, lane, pc, (address.space, base.wrapping_add(address.offset)), bytes)
    }

    /// Reads the source of a copy.
    fn fetch(&mut self, warp: &Warp, lane: usize, pc: u32, from: Place, bytes: u64) -> Vec<u8> {
        self.note(warp.first + lane, pc, from, bytes, BlockAccess::Read, PLAIN);
        (0..bytes as u32).map(|i| self.read(warp, lane, super::place::advance(from, i), 1) as u8).collect()
    }

    /// The target must be free: its last uses are ordered before the copy.
    fn start(&mut self, thread: usize, pc: u32, to: Place, bytes: u64) {
        self.note(thread, pc, to, bytes, BlockAccess::Write, PLAIN);
        if let Place::Shared(block, at) = to {
            self.blocks[block].shadow.set_in_flight(at, bytes, true);
        }
    }

    /// A copy's bytes arrive; they are the thread's own writes.
    fn end(&mut self, thread: usize, copy: Copy) {
        let bytes = copy.bytes.len() as u64;
        if let Place::Shared(block, at) = copy.to {
            let block = &mut self.blocks[block];
            block.shadow.set_in_flight(at, bytes, false);
            block.shared[at as usize..][..copy.bytes.len()].copy_from_slice(&copy.bytes);
        }
        self.note(thread, copy.pc, copy.to, bytes, BlockAccess::Write, PLAIN);
        if let Place::Buffer(index, at) = copy.to {
            let buffer = self.context.buffers[index];
            copy.bytes.chunks(4).zip(0..).for_each(|(word, i)| buffer.store(at + 4 * i, 4, number(word)));
        }
    }

    /// Ends a thread's copies but for the last `pending` groups; with none, all of them.
    pub(crate) fn complete_copies(&mut self, warp: &Warp, lane: usize, pending: Option<u64>) {
        let thread = warp.first + lane;
        let copies = self.copies.entry(thread).or_default();
        let ended = copies.groups.len().saturating_sub(pending.unwrap_or(0) as usize);
        let mut ended: Vec<Copy> = copies.groups.drain(..ended).flatten().collect();
        if pending.is_none() {
            ended.append(&mut copies.open);
        }
        ended.into_iter().for_each(|copy| self.end(thread, copy));
    }

    fn bulk(
        &mut self,
        warp: &Warp,
        lane: usize,
        pc: u32,
        (to, from, barrier): (Address, Address, Option<Address>),
        bytes: u64,
    ) {
        let thread = warp.first + lane;
        if !bytes.is_multiple_of(16) || bytes == 0 {
            self.find(Kind::Misaligned, thread, pc, "size", || {
                format!("bulk copy of {bytes} bytes, no multiple of 16")
            });
            return;
        }
        // Both ends are aligned to 16 bytes and exist to their last one.
        let whole = |group: &mut Self, address: Address| {
            let start = group.target(warp, lane, pc, address, 16)?;
            let last = Address { offset: address.offset.wrapping_add(bytes - 16), ..address };
            group.target(warp, lane, pc, last, 16).map(|_| start)
        };
        let (Some(target), Some(source)) = (whole(self, to), whole(self, from)) else { return };
        let data = self.fetch(warp, lane, pc, source, bytes);
        if let Place::Buffer(index, at) = source {
            self.buffer_counters[index].request(&mut [at], bytes, false);
        }
        if let Place::Buffer(index, at) = target {
            self.buffer_counters[index].request(&mut [at], bytes, true);
        }
        let copy = Copy { to: target, bytes: data, pc };
        match barrier {
            None => self.copies.entry(thread).or_default().bulk_open.push(copy),
            Some(barrier) => {
                let Some(Place::Shared(block, at)) = self.target(warp, lane, pc, barrier, 8) else { return };
                if !self.mbarriers.contains_key(&(block, at)) {
                    self.find(Kind::Mbarrier, thread, pc, "", || {
                        "bulk copy to an mbarrier that is not initialised".into()
                    });
                    return;
                }
                self.start(thread, pc, target, bytes);
                // Who waits for the mbarrier waits for what the issuing thread did before, too.
                let mut gathered = std::mem::take(&mut self.mbarriers.entry((block, at)).or_default().gathered);
                self.clocks.release(thread, &mut gathered);
                self.mbarriers.entry((block, at)).or_default().gathered = gathered;
                self.copies.entry(thread).or_default().awaited.push(((block, at), copy));
            }
        }
    }

    /// Ends the bulk copies that an mbarrier awaits; whether there were any.
    pub(crate) fn complete_bulk(&mut self, key: (usize, u64)) -> bool {
        let mut threads: Vec<usize> = self.copies.keys().copied().collect();
        threads.sort_unstable();
        let mut any = false;
        for thread in threads {
            let Some(copies) = self.copies.get_mut(&thread) else { continue };
            let (ended, kept) = std::mem::take(&mut copies.awaited).into_iter().partition(|(k, _)| *k == key);
            copies.awaited = kept;
            let ended: Vec<((usize, u64), Copy)> = ended;
            for (_, copy) in ended {
                any = true;
                let bytes = copy.bytes.len() as u64;
                self.land(copy);
                self.arrived_bytes(key, bytes);
            }
        }
        any
    }

    /// A bulk copy's bytes arrive. They count as written when it was issued, which the mbarrier hands over.
    fn land(&mut self, copy: Copy) {
        if let Place::Shared(block, at) = copy.to {
            let block = &mut self.blocks[block];
            block.shadow.set_in_flight(at, copy.bytes.len() as u64, false);
            block.shared[at as usize..][..copy.bytes.len()].copy_from_slice(&copy.bytes);
        }
    }

    /// Nobody can go on: copies that are still under way end now. Whether there were any.
    pub(crate) fn complete_bulk_copies(&mut self) -> bool {
        let keys: Vec<(usize, u64)> = self.copies.values().flat_map(|c| c.awaited.iter().map(|(k, _)| *k)).collect();
        let mut any = false;
        for key in keys {
            any |= self.complete_bulk(key);
        }
        self.wake_mbarriers();
        any
    }

    /// All threads have ended: copies to global memory that were started end too, but shared memory that they read from
    /// is gone, which is a mistake of the kernel.
    pub(crate) fn finish_copies(&mut self) {
        let mut left: Vec<(usize, Copies)> = self.copies.drain().collect();
        left.sort_by_key(|(thread, _)| *thread);
        for (thread, copies) in left {
            let bulk = copies.bulk_groups.into_iter().flatten().chain(copies.bulk_open);
            for copy in bulk {
                self.find(Kind::CopyInFlight, thread, copy.pc, "end", || {
                    "the thread ends while a bulk copy still reads its block's shared memory".into()
                });
                self.end(thread, copy);
            }
        }
    }
}
